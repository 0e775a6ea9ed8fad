# Puts on the paths what `make` has set up:  . tools/env.sh
# That is the virtual environment, ROS 2 (from its wheels, unless another ROS 2 is sourced), the built package and
# the model store of this checkout.
_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PATH="$_root/.venv/bin:$PATH"
if [ -e "$_root/.venv/.ros-from-wheels" ]; then
  export AMENT_PREFIX_PATH="$_root/.venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
  export CMAKE_PREFIX_PATH="$_root/.venv${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}"
  export ROS_VERSION=2 ROS_PYTHON_VERSION=3 ROS_DISTRO=kilted
fi
export LIGHTGLUE_ROS_HOME="${LIGHTGLUE_ROS_HOME:-$_root/.store}"
if [ -e "$_root/install/local_setup.bash" ]; then
  . "$_root/install/local_setup.bash"
fi
unset _root
