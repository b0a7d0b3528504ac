#!/usr/bin/env python3
"""Ends with status 0 if a registry answers at the URL within three seconds, be it "log in first"."""

import sys
import urllib.error
import urllib.request

try:
    urllib.request.urlopen(sys.argv[1], timeout=3)
except urllib.error.HTTPError as error:
    sys.exit(0 if error.code == 401 else 1)
except OSError:
    sys.exit(1)
