#!/usr/bin/env python
"""Django's command-line utility for administrative tasks."""

import gc
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import InterfaceError, InternalError, OperationalError, ProgrammingError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "deepfake_site.settings")
    gc.disable()  # next to nothing that imports make is garbage; `detector.apps` turns it on again after them
    try:
        execute_from_command_line(sys.argv)
        print(end="", flush=True)
    except ImproperlyConfigured as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(str(error))  # for whoever set it; where it was read does not help them
    except (InterfaceError, InternalError, OperationalError, ProgrammingError) as error:
        if "--traceback" in sys.argv:
            raise
        reason = str(error).partition("\n")[0]  # the lines below it quote the query, or repeat it for each address
        sys.exit(f"The database failed: {reason}. DATABASE_URL says where it is; `manage.py migrate` makes its tables.")
    except BrokenPipeError:  # whoever reads has seen enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit breaks as well
        sys.exit(1)


if __name__ == "__main__":
    main()
