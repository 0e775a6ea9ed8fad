"""`lightglue_ros bag`: recorded bags to the same bags with matches, as the node would have published them."""
