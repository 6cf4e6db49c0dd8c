"""`make demo`: the main job end to end on a local cluster, every promise checked by observation."""
