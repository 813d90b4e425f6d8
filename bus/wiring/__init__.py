"""The composition root: settings in, running parts out. Nothing else reads settings or chooses what is real.

One file for each thing that runs, so that a command loads only what it needs: `site`, `stack`, `server`,
`worker`, `publishing`, `querying`, `viewing`.
"""
