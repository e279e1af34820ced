"""The finished code of the seven chapters: a GPT from text to speech.

Every module here but this one is written by tools/export.py from one of the chapters:
edit the chapter, not the module. Copy the folder, or single files, anywhere.

Imported before torch, the package sets how torch's threads wait for each other. By
default they spin for milliseconds, and where other programs run as well, that makes
everything slow; asleep at once, a small model trains a third slower. A thousand turns,
some microseconds, are as fast as spinning, and leave the processor to others.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # both are read once, when torch
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # is loaded
