# Source this to use what `make` has set up:  . tools/env.sh
# It puts the virtual environment, ROS 2 (from its wheels, unless another one is sourced) and the built
# package on the paths, and chooses the model store of this checkout.
lightglue_ros_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
lightglue_ros_venv="$lightglue_ros_root/.venv"
export PATH="$lightglue_ros_venv/bin:$PATH"
if [ -e "$lightglue_ros_venv/.ros-from-wheels" ]; then
  export AMENT_PREFIX_PATH="$lightglue_ros_venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
  export CMAKE_PREFIX_PATH="$lightglue_ros_venv${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}"
  export ROS_VERSION=2 ROS_PYTHON_VERSION=3 ROS_DISTRO=kilted
fi
if [ -e "$lightglue_ros_root/install/local_setup.bash" ]; then
  . "$lightglue_ros_root/install/local_setup.bash"
fi
export LIGHTGLUE_ROS_HOME="${LIGHTGLUE_ROS_HOME:-$lightglue_ros_root/.store}"
unset lightglue_ros_root lightglue_ros_venv
