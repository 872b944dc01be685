# `make` lists what there is to do.

GO          ?= go
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
ARCHS        = amd64 arm64 arm riscv64

# One static file: it is copied to other hosts and into the lab's machines.
BUILD = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"

.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo 'make TARGET, where TARGET is'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: build
build: ## the program, ./crucible
	$(BUILD) -o crucible ./cmd/crucible

.PHONY: setup
setup: ## give this machine what crucible needs at run time, CRIU first (root)
	scripts/setup

.PHONY: setup-tests
setup-tests:
	scripts/setup --tests

.PHONY: demo
demo: setup build ## see a container checkpointed and restored (root)
	scripts/demo

# One package at a time: as root they meet on the same host, where one would
# see the mounts of another and measure on its processor. What the machine
# lacks is shown in the end: go test hides what a test that passes has printed.
.PHONY: test
test: setup-tests ## every test; a skipped one is a failure (root)
	@lacks=$$(mktemp) && trap 'cat "$$lacks"; rm -f "$$lacks"' EXIT; set -x; \
		CRUCIBLE_TEST_NOSKIP=1 CRUCIBLE_TEST_LACKS="$$lacks" $(GO) test -p 1 -count=1 -timeout 15m ./...

.PHONY: test-nobody
test-nobody: build ## the tests that boot no machine, as a user without rights, from a root shell
	CRUCIBLE_BINARY="$(CURDIR)/crucible" $(GO) test -short -count=1 -exec "$(CURDIR)/.ci/as-nobody" ./...

.PHONY: check
check: ## gofmt, vet, staticcheck, and that go.mod and the generated code are up to date
	@files=$$(gofmt -l cmd container images checkpoint restore experiments proto 2>/dev/null); \
		[ -z "$$files" ] || { echo "gofmt -w these:"; echo "$$files"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	proto/generate.sh --check

.PHONY: cross
cross: ## compile for every architecture that we care for
	@for arch in $(ARCHS); do \
		echo "GOARCH=$$arch $(GO) build ./..."; \
		GOARCH=$$arch CGO_ENABLED=0 $(GO) build -o /dev/null ./... || exit 1; \
	done

.PHONY: bench
bench: setup-tests build ## compare with runc and LXC, on this machine (root)
	scripts/bench
