"""The commands ``polly`` and ``docker-credential-polly``.

They use only the server's ``/api/v1``. Functions import slow modules when they need them, so that ``--help`` and
``docker-credential-polly`` answer fast.
"""
