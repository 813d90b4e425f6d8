"""Systems of departments that read shared views: one file each, to be copied and changed."""
