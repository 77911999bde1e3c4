"""The project's settings, with what a deployment's environment would provide."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("SECRET_KEY", "only-for-tests")
if "DATA_DIR" not in os.environ:
    os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="prayer-room-")
    atexit.register(shutil.rmtree, os.environ["DATA_DIR"])

from prayer_room_api.settings import *

# Test passwords need no protection; the default hasher takes 0.3 s for each.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
