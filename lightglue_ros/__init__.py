"""Match keypoints between the cameras of a robot: one padded-batch ONNX graph, published as ROS 2 messages.

`lightglue_ros.core` is the runtime (NumPy in, NumPy out), `lightglue_ros.export` turns weights into
ONNX files, `lightglue_ros.nodes` are the ROS 2 nodes.
"""

__version__ = "0.1.0"
