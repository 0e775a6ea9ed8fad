"""The command `lightglue_ros bag`: recorded bags in, the same bags with the node's matches out."""
