"""The finished code of the seven chapters: a GPT from text to speech.

Every module here but this one is written by tools/export.py from the chapter of the
same name: edit the chapter, not the module. Copy the folder, or single files, anywhere.
"""
