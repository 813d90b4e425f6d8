"""What the bus is measured against, each as its makers would have it used."""
