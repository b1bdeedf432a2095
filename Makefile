# pipeline · test · ui · bench · team · drill; each sets up .venv from requirements.lock when needed.
# peers installs what the benchmarks hold ours against into .peers, from a lock of its own: nothing else imports it.
# figures copies the pictures that the READMEs show out of what the pipeline made; lock resolves the pins anew.
# the figures of the README were made with 3.11
PYTHON ?= $(shell command -v python3.11 || echo python3)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1

.PHONY: pipeline vision tables text test ui bench peers figures lock team backup restore drill audit

pipeline: .venv/installed
	@python -m flows.pipeline

# Fashion-MNIST, by download or from GENAI_DATA_MIRROR: a project of its own on the same graph and code
vision: .venv/installed
	@cd vision && python -m flows.pipeline

# California housing and adult, by download or from GENAI_DATA_MIRROR, and small tables: likewise
tables: .venv/installed
	@cd tables && python -m flows.pipeline

test: .venv/installed
	@ruff check --quiet . && ruff format --check --quiet . && mypy && lint-imports --no-cache >/dev/null || { lint-imports --no-cache; exit 1; }
	@python -m pytest -n 2 --no-loadscope-reorder

# texts by half an hour of one core each: likewise
text: .venv/installed
	@cd text && python -m flows.pipeline

ui: .venv/installed
	@python -m genai ui

bench: .venv/installed
	@python -m bench.training
	@python -m bench.cost
	@python -m bench.scale

# the team's services in containers, docker-compose.yml; what they hold, as files, and back: make restore BACKUP=backups/WHEN
team: .venv/installed
	@python services/team.py up

backup: .venv/installed
	@python services/team.py backup

restore: .venv/installed
	@python services/team.py restore "$(BACKUP)"

# all of that on an engine: doors, killed services, a backup into an empty stack; minutes
drill: .venv/installed
	@GENAI_DRILL=1 python -m pytest -rs tests/services

# the lock's versions against the public list of vulnerabilities; needs the internet
audit: .venv/installed
	@mkdir -p .work
	@{ echo '# /// script'; echo '# requires-python = ">=3.11,<3.14"'; echo '# dependencies = ['; \
	   awk '/^[a-z]/ {sub(/ \\$$/, ""); gsub(/"/, "\\\""); print "#   \"" $$0 "\","}' requirements.lock; \
	   echo '# ]'; echo '# ///'; } > .work/audit.py
	@uv audit --preview-features audit --script .work/audit.py

peers: .peers/installed

.peers/installed: bench/peers.txt | .venv/installed
	@uv pip install --quiet --python .venv/bin/python --target .peers --require-hashes --no-deps -r bench/peers.txt
	@touch $@

figures:
	@mkdir -p docs
	@cp reports/figures/curves.png reports/figures/learning_curve_digits.png docs/
	@for name in k_means logistic_regression; do cp reports/figures/$$name/weights.png docs/$$name.png; done
	@for name in architecture filters exciting grad_cam neighbors; do cp looks/cnn/$$name.png docs/cnn_$$name.png; done
	@cp samples/image_diffusion/grid.png docs/digits.png
	@cp samples/text_diffusion/denoising.gif docs/
	@for name in trajectories guidance denoising; do cp samples/image_diffusion/$$name.png docs/digits_$$name.png; done
	@cp generated/image_diffusion/neighbors.png docs/digits_neighbors.png

# uv is pinned and hash-checked by the lock as well; byte code is compiled once, not by every process.
.venv/installed: requirements.lock
	@echo "Setting up .venv (about 6 GB; minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0])'
	@$(PYTHON) -m venv .venv
	@awk '/^[a-z]/ {uv = /^uv==/} uv' requirements.lock > .venv/uv.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.txt
	@.venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes --compile-bytecode requirements.lock
	@touch $@

lock: pyproject.toml
	uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --group test pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header -c requirements.lock --group services -o requirements-services.lock
	uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header -c requirements.lock bench/peers.in \
	| awk 'NR == FNR {if (/^[a-z]/) {sub(/==.*/, ""); own[$$0]} next} \
	  /^[a-z]/ {name = $$0; sub(/==.*/, "", name); new = !(name in own)} new' requirements.lock - > bench/peers.txt
