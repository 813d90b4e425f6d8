"""What one worker does beside building: leases, sharing views out, readers, noticing what changed.

`bus.views.worker` puts these together into the Faust application.
"""
