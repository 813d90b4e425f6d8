"""HTTP: the app, one router per audience, the portal's pages.

Handlers are thin: identity, one call of a lower room, a response. Authorisation hangs on routes, never on paths.
"""
