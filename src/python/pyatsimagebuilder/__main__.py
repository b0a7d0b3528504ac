"""``python -m pyatsimagebuilder``: the program itself."""

import os
import sys

from ._tool import PROGRAM, program

os.execv(program(), [PROGRAM, *sys.argv[1:]])
