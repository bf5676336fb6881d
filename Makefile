# KC's chores. Every target may be repeated; on a fresh Debian machine each installs what it needs.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help system venv services run check test test-fast bench screenshots lock clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Debian's own, where there is one: a Python of another origin may lack what the packages below bring.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)

# What KC needs to run: libvirt and QEMU, what libvirt-python is built with, and what builds the starter image.
RUN_PACKAGES := \
	libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base iptables nftables iproute2 \
	qemu-system-x86 qemu-utils ovmf util-linux \
	python3 python3-venv python3-pip python3-dev libvirt-dev libldap2-dev libsasl2-dev gcc pkg-config \
	dosfstools kmod mtools syslinux
# What the tests drive besides, or make their samples with.
TEST_PACKAGES := apache2-utils busybox-static caddy ldap-utils nginx-light oathtool slapd wrk openssh-client openssh-server openssl etcd-server etcd-client qemu-system-arm qemu-efi-aarch64 zsh fish bzip2 e2fsprogs xz-utils zstd

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: system venv services ## everything a first VM needs, then KC; without a terminal it makes the VM hello instead
	@if [ -t 0 ]; then \
		.ci/with-libvirt $(BIN)/kc init && exec .ci/with-libvirt $(BIN)/kc; \
	else \
		exec .ci/with-libvirt .ci/hello $(BIN)/kc; \
	fi

system: ## the Debian packages that are missing, as root or through sudo
	@.ci/packages $(RUN_PACKAGES) $(if $(WITH_TESTS),$(TEST_PACKAGES))

venv: $(STAMP) ## the virtual environment, from requirements.lock

# The lock holds the developers' tools too: one environment, and one set of hashes.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "KC needs Python 3.11: make PYTHON=…" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing KC into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(BIN)/python -m compileall -q backend kc_tui
	@touch $@

services: ## libvirtd, where none answers
	@.ci/services

check: venv ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: WITH_TESTS := yes
test: system venv services check ## all tests, real libvirt and booted guests among them
	.ci/with-libvirt .ci/test-halves $(BIN)/pytest $(ARGS)

test-fast: venv ## the tests that need no libvirt
	$(BIN)/pytest -m "not libvirt and not guest and not performance" $(ARGS)

bench: WITH_TESTS := yes
bench: system venv services ## KC against virsh, bare Textual, raw SQLite, plain TinyDB and etcdctl, side by side
	.ci/with-libvirt $(BIN)/python tests/performance/bench.py $(ARGS)
	$(BIN)/python tests/performance/store_bench.py
	$(BIN)/python tests/performance/etcd_bench.py
	$(BIN)/python tests/performance/api_bench.py
	.ci/with-libvirt $(BIN)/python tests/performance/remote_bench.py

screenshots: venv ## the pictures in screenshots/, from the real application
	$(BIN)/python screenshots/make.py $(ARGS)

lock: build/uv/bin/uv ## requirements.lock, anew
	build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra libvirt --extra ldap --group dev \
		--no-emit-index-url --no-header --output-file requirements.lock pyproject.toml

build/uv/bin/uv:
	@$(PYTHON) -m venv build/uv
	@build/uv/bin/pip install --quiet --disable-pip-version-check uv

clean: ## remove what the targets above made in this folder; VMs stay
	rm -rf $(VENV) build dist .pytest_cache .schemathesis .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
