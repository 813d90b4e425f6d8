"""An outside identity provider (OpenID Connect): its keys, what its tokens say, and signing people in.

Part of `bus.access`; may touch identity, core and the provider over HTTP.
"""
