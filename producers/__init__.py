"""Department systems that publish: one runnable file each (`python -m producers.market`).

They use only the public names of `bus`. The data of four of them is real (`data/README.md`), the police's is synthetic.
"""
