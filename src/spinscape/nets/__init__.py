"""Weight space, models, data, engines and the training of populations."""
