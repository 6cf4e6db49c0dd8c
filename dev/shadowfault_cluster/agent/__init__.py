"""The node agent: a kubelet without containers. See README.md in this folder for what it supports."""
