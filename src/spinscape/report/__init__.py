"""From what a run stored to a page that anybody can read: pictures, findings, words.

The report computes no physics. `write(run)` draws the page of a run; `draw(dataset)` makes the
same pictures of one Dataset, for a notebook.
"""

from spinscape.report.page import write
from spinscape.report.pictures import draw

__all__ = ["draw", "write"]
