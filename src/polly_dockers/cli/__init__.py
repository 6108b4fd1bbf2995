"""The commands ``polly`` and ``docker-credential-polly``.

They reach a server through ``/api/v1`` alone. Whatever is slow to import is imported inside the function that needs
it, so that ``--help`` and Docker's question for a credential answer at once.
"""
