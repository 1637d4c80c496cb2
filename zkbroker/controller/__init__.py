"""PURE: the cluster image and the controller's decisions. (event, now) in, effects out."""
