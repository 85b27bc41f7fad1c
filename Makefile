# The ways into this repository. `make` alone lists them; all are safe to repeat.
.POSIX:
.SUFFIXES:

CARGO = cargo
# Where cargo builds; a directory of your own is respected.
TARGET = $${CARGO_TARGET_DIR:-target}

.PHONY: help run build agent-static test setup bench-plugins bench-dispatch bench-machines clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 24

run: ## install what is missing, build, and serve the example plugins
	@scripts/setup run
	$(CARGO) build --release --locked --package gatehouse
	@"$(TARGET)/release/gatehouse" image build small --if-changed >/dev/null || \
		echo "make: without an image there are no machines; all else works. Again: gatehouse image build small" >&2
	@exec "$(TARGET)/release/gatehouse" serve --default

build: ## install what is missing, and build both programs: gatehouse and gatehouse-agent
	@scripts/setup run
	$(CARGO) build --release --locked --package gatehouse --package agent

# With a target named, the flag is for the program alone: macros that the compiler loads cannot be static.
agent-static: ## build gatehouse-agent as a file that needs no other, for this kind of machine
	@scripts/setup run
	@host=$$(rustc -vV | sed -n 's/^host: //p'); \
	RUSTFLAGS="$$RUSTFLAGS -C target-feature=+crt-static -C strip=symbols" \
	$(CARGO) build --release --locked --package agent --target "$$host" && \
	echo "built $(TARGET)/$$host/release/gatehouse-agent"

test: setup ## install what is missing, then run every check and test
	@images/build small --if-changed >/dev/null
	@[ "$$(id -u)" != 0 ] || images/build debian --if-changed >/dev/null
	$(CARGO) xtask ci

setup: ## install what building and testing needs, and nothing else
	@scripts/setup test

bench-plugins: ## measure the plugin server
	@scripts/setup test
	@benches/plugins/run.sh

bench-dispatch: ## measure tasks, events and parked agents
	@scripts/setup test
	@benches/dispatch/run.sh

bench-machines: ## measure temporary machines
	@scripts/setup test
	@benches/machines/run.sh

clean: ## remove everything that was built or installed here
	$(CARGO) clean
	rm -rf .venv .bench .images
