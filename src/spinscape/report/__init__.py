"""From what a run stored to a page that anybody can read: pictures, findings, words.

The report computes no physics. `write(run)` draws the page of a run.
"""

from spinscape.report.page import write

__all__ = ["write"]
