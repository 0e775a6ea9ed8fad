# Puts on the paths what `make` has set up:  . tools/env.sh   (after `make ... ROS_DISTRO=jazzy`:  . tools/env.sh jazzy)
# That is the virtual environment, ROS 2 (from its wheels, unless another ROS 2 is sourced), the built package and
# the model store of this checkout.
_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
case "${1:-}" in
  jazzy) _distribution=jazzy _suffix=-jazzy ;;
  *) _distribution=kilted _suffix= ;;
esac
# This shell may have the other distribution on its paths.
for _name in PATH PYTHONPATH LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH; do
  export "$_name=$(tr : '\n' <<< "${!_name:-}" | grep -vF -e "$_root/.venv" -e "$_root/install" | paste -sd :)"
  [ -n "${!_name}" ] || unset "$_name"
done
export PATH="$_root/.venv$_suffix/bin:$PATH"
if [ -e "$_root/.venv$_suffix/.ros-from-wheels" ]; then
  export AMENT_PREFIX_PATH="$_root/.venv$_suffix${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
  export CMAKE_PREFIX_PATH="$_root/.venv$_suffix${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}"
  export ROS_VERSION=2 ROS_PYTHON_VERSION=3 ROS_DISTRO=$_distribution
fi
export LIGHTGLUE_ROS_HOME="${LIGHTGLUE_ROS_HOME:-$_root/.store}"
if [ -e "$_root/install$_suffix/local_setup.bash" ]; then
  . "$_root/install$_suffix/local_setup.bash"
fi
unset _root _distribution _suffix _name
