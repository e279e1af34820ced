"""The finished code of the seven chapters: a GPT from text to speech.

Every module here but this one is written by tools/export.py from the chapter of the
same name: edit the chapter, not the module. Copy the folder, or single files, anywhere.

Imported before torch, the package makes torch's threads sleep while they wait. By
default they spin, and where other programs run as well, that makes everything slow.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is loaded
