"""What everybody gets: figures about few persons are withheld, whichever way somebody comes for open data."""
