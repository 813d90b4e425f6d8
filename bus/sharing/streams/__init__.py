"""The stream door: each granted consumer's topic ``share.<consumer>.<view>``, filtered and masked, kept right by a
process of its own with a database of its own. It asks the same decision as every door, before anything leaves.
"""
