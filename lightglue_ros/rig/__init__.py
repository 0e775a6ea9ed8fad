"""N cameras through time: rig and pairs, frame assembly, history, verification."""
