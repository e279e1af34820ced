"""The finished code of the seven chapters: a GPT from text to speech.

Every module here but this one is written by tools/export.py from one of the chapters:
edit the chapter, not the module. Copy the folder, or single files, anywhere.

Imported before torch, the package sets how torch's threads wait for each other. By
default they spin for milliseconds, and where other programs run as well, that makes
everything slow; asleep at once, a small model trains a third slower. A thousand turns,
some microseconds, are as fast as spinning, and leave the processor to others.

With COURSE_PACKAGE=mine in the environment, the modules are those of the folder `mine`,
a learner's own (tools/learner.py of the course).
"""

import os
import runpy
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # both are read once, when torch
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # is loaded

if __name__ == "solutions" and "COURSE_PACKAGE" in os.environ:  # not in a copy
    _tool = Path(__file__).resolve().parent.parent / "tools" / "learner.py"
    runpy.run_path(str(_tool))["use"](
        os.environ["COURSE_PACKAGE"], os.environ.get("COURSE_TESTED", "")
    )
