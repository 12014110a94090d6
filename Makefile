# Shallot: `make help` lists what there is. A fresh machine needs Go, make and, for the faster engine, a C compiler.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MODULES  := proto kit broker services/discovery services/metric services/task services/node gateway cli test
BIN      := $(CURDIR)/bin
CACHE    := $(CURDIR)/.cache
TOOLS    := $(CACHE)/tools
VERSION  ?= $(shell deploy/release/version.sh)
# grpcnotrace leaves grpc's /debug/requests pages out, and with them the templates for whose sake the linker keeps every exported method:
# an idle node takes a sixth less memory.
GOFLAGS_BUILD := -tags grpcnotrace -trimpath -buildvcs=false -ldflags "-s -w -X github.com/shallot-net/shallot/kit/version.Version=$(VERSION)"

# With a C compiler the wasm executor gets wasmtime; without one it builds with wazero, and says so.
CC_FOUND := $(shell command -v $${CC:-cc} 2>/dev/null)
ifeq ($(CC_FOUND),)
export CGO_ENABLED := 0
RACE :=
else
RACE := -race
endif

COMMANDS := broker/cmd/shallot-broker broker/cmd/shallot-onion services/discovery/cmd/shallot-discovery services/metric/cmd/shallot-metric \
	services/task/cmd/shallot-task services/task/cmd/shallot-executor-wasm services/node/cmd/shallot-node \
	gateway/cmd/shallot-gateway cli/cmd/shallot

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The dashboard's built files are kept beside the gateway, which embeds them, so that building needs no npm. SOURCES is what they were built from.
DASHBOARD := gateway/internal/dashboard
web-sources = cd web && find index.html package-lock.json svelte.config.js vite.config.ts scripts src -type f ! -name '*.test.ts' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1

.PHONY: web
web: web/node_modules ## the dashboard, from web/ into the gateway; needs Node.js 20.19 and npm
	@cd web && npm run --silent build
	@($(web-sources)) > $(DASHBOARD)/SOURCES

web/node_modules: web/package-lock.json
	@cd web && npm ci --no-audit --no-fund --silent
	@touch $@

.PHONY: web-current
web-current:
	@[ "$$($(web-sources))" = "$$(cat $(DASHBOARD)/SOURCES)" ] || { \
		if command -v npm >/dev/null; then $(MAKE) --no-print-directory web; \
		else echo "the dashboard's sources have changed: install Node.js and npm to build it; the one that was kept is used" >&2; fi; }

.PHONY: web-check
web-check: web/node_modules ## the dashboard's sources: formatted, linted, typed, and what is kept is what they build
	@cd web && npm run --silent check && npm test --silent && node scripts/kept.mjs

.PHONY: test-web
test-web: build examples ## the dashboard in a real browser before real nodes; needs Node.js, npm and chromium
	@command -v npm >/dev/null && [ -x "$${CHROMIUM:-/usr/bin/chromium}" ] || { \
		missing="npm or chromium is not here; to get them: apt-get install npm chromium, or say with CHROMIUM where it is"; \
		if [ "$${CI:-}" = true ]; then echo "make test-web: $$missing" >&2; exit 1; fi; \
		echo "left out: $$missing" >&2; exit 0; }; \
	cd web && { [ node_modules -nt package-lock.json ] || npm ci --no-audit --no-fund --silent; } && SHALLOT_BIN=$(BIN) npm run --silent test:browser

.PHONY: screenshots
screenshots: build examples web/node_modules docs/node_modules ## pictures of all screens of the dashboard, into dist/screenshots, and of them those that README and docs show; needs chromium
	@cd web && SHALLOT_BIN=$(BIN) SHALLOT_SCREENSHOTS=$(CURDIR)/dist/screenshots npm run --silent test:browser -- screenshots
	@cd docs && npm run --silent pictures -- $(CURDIR)/dist/screenshots

.PHONY: docs
docs: docs/node_modules ## the site of the pages in docs/, into dist/docs; needs Node.js 20.9 and npm
	@cd docs && npm run --silent build
	@echo "dist/docs: to read it, cd docs && npm run preview"

.PHONY: docs-check
docs-check: docs/node_modules ## links, headings and pictures of all pages, and of the site that is built from those in docs/
	@cd docs && npm run --silent check

docs/node_modules: docs/package-lock.json
	@cd docs && npm ci --no-audit --no-fund --silent
	@touch $@

.PHONY: build
build: web-current ## shallot and one binary per process into bin/
ifeq ($(CC_FOUND),)
	@echo "no C compiler: building the wasm executor with wazero, the slower engine; to get wasmtime, install gcc or clang" >&2
endif
	@mkdir -p $(BIN)
	@for c in $(COMMANDS); do \
		echo "build $$(basename $$c)"; \
		(case $$c in *executor-wasm) ;; *) export CGO_ENABLED=0 ;; esac; \
		cd $${c%%/cmd/*} && GOWORK=off go build $(GOFLAGS_BUILD) -o $(BIN)/ ./cmd/$${c##*/}); \
	done

.PHONY: examples
examples: ## the example programs, compiled to WebAssembly, into bin/examples/
	@mkdir -p $(BIN)/examples
	@for d in examples/*/main.go; do \
		[ ! -f "$$(dirname "$$d")/go.mod" ] || continue; \
		n=$$(basename $$(dirname $$d)); echo "build examples/$$n.wasm"; \
		GOWORK=off GO111MODULE=off GOFLAGS= GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags "-s -w" -o $(BIN)/examples/$$n.wasm $$d; \
	done

.PHONY: demo
demo: build examples ## a small network on this machine: two tasks, their results, who did what
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) go run ./cmd/demo $(DEMOFLAGS)

.PHONY: demo-anonymous
demo-anonymous: build examples ## the same over a private Tor network on this machine, which takes a minute; needs the program tor
	@command -v tor >/dev/null || [ -x /usr/sbin/tor ] || { echo "make demo-anonymous needs the program tor: apt-get install tor" >&2; exit 1; }
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) go run ./cmd/demo -anonymous $(DEMOFLAGS)

.PHONY: test
test: build examples ## all tests
	@test/all.sh $(BIN) "$(RACE)" $(MODULES)

FAULTFLAGS ?= -seed 0 -for 15m
.PHONY: faults
faults: build ## a network under load is hurt for a quarter of an hour; FAULTFLAGS="-seed 7 -for 1h" for a certain one
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) go test -count=1 -v -timeout 5h ./faults -args $(FAULTFLAGS)

.PHONY: test-long
test-long: build ## the long tests: 1 GiB each way with Kubo, attacks and what they cost, colluding providers over Tor, tors that die under 50 tasks, 10,000 seeds of the simulation of tasks, every mixture of the previous release and this one, 10,000 simulated nodes
	@cd services/task && GOWORK=off SHALLOT_LONG=1 go test -count=1 -timeout 60m ./internal/simulation
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) SHALLOT_LONG=1 go test -count=1 -timeout 60m ./interop ./hostile
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) SHALLOT_LONG=1 go test -count=1 -v -timeout 60m -run TestTasksAreUnlinkable ./linkability
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) SHALLOT_LONG=1 go test -count=1 -v -timeout 60m -run TestAnonymousNetwork/tors_die ./failclosed
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) SHALLOT_LONG=1 go test -count=1 -v -timeout 60m -run TestRollingUpgrade ./upgrade
	@cd test && GOWORK=off SHALLOT_LONG=1 go test -count=1 -v -timeout 120m ./netsim

.PHONY: fuzz
FUZZTIME ?= 10s
fuzz: ## every fuzz target for FUZZTIME (10s)
	@test/fuzz.sh $(FUZZTIME) $(MODULES)

.PHONY: bench
bench: build examples ## the figures of the suite beside their floors: a table and bin/bench.json
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) go run ./cmd/bench -out $(BIN)/bench.json

.PHONY: bench-tor
bench-tor: build ## tasks over a private Tor network and content beside what tor alone takes, with the delays of the world, and with 30 nodes; needs the program tor, and half an hour
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) go run ./cmd/bench -rows tor,tor-content,tor-delay,tor-scale -out $(BIN)/bench-tor.json

.PHONY: bench-compose
bench-compose: build ## a node in containers beside one on sockets and SQLite, with more and fewer replicas, while they are killed; needs a Docker engine, and ten minutes
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) go run ./cmd/bench -rows compose -out $(BIN)/bench-compose.json

.PHONY: images
images: ## an image for each service, with the Docker engine of this machine
	@SHALLOT_VERSION=$(VERSION) SHALLOT_REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) docker compose -f deploy/docker-compose.yml --profile consumer --profile cli build

.PHONY: test-compose
test-compose: build ## a node in containers is brought up, used, scaled, hurt and taken down, and the commands of docs/operations.md and docs/how-to/scale-a-node.md are run; needs a Docker engine, and minutes
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) SHALLOT_COMPOSE=1 go test -count=1 -v -timeout 30m -run 'TestDeployment|TestAnonymousDeployment|TestOperations|TestScaleANode' ./compose

.PHONY: release
release: ## archives, Debian packages, checksums and notes of this commit into dist/release; with Debian's gcc-aarch64-linux-gnu the faster engine for arm64, too
	@deploy/release/release.sh dist/release $(VERSION)

.PHONY: test-release
test-release: ## two releases of this commit, from different folders and without what was compiled before, are the same, byte by byte; takes a quarter of an hour
	@cd test && GOWORK=off SHALLOT_RELEASE=1 go test -count=1 -v -timeout 90m -run TestTwoReleasesAreTheSame ./packages

.PHONY: test-package
test-package: build examples ## the Debian package is installed, used, upgraded from the previous release's, and purged; needs a Docker engine, and four minutes
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) SHALLOT_PACKAGE=1 go test -count=1 -v -timeout 25m -run TestDebianPackage ./packages

.PHONY: sbom
sbom: build ## what each program is made of (CycloneDX), and a page of all modules with their licences and texts, into dist/sbom
	@rm -rf dist/sbom
	@cd test && GOWORK=off go run ./cmd/sbom -out $(CURDIR)/dist/sbom $(addprefix $(BIN)/,$(notdir $(COMMANDS)))
	@echo "dist/sbom: $$(ls dist/sbom/*.cdx.json | wc -l) bills of materials, LICENCES.md"

.PHONY: settings
settings: build ## docs/settings.md, from what the programs say of themselves
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) go test -count=1 ./compose -run TestEverySetting -update

.PHONY: metrics-doc
metrics-doc: build ## docs/metrics.md, from what the processes of a node say of themselves
	@cd test && GOWORK=off SHALLOT_BIN=$(BIN) go test -count=1 ./watch -run TestThePageOfMetrics -update

.PHONY: lint
lint: $(TOOLS)/golangci-lint $(TOOLS)/buf ## golangci-lint per module, buf lint
	@$(TOOLS)/buf lint
	@failed=; for m in $(MODULES) examples/client-go; do \
		[ -n "$$(cd $$m && GOWORK=off go list ./... 2>/dev/null)" ] || continue; \
		echo "== lint $$m"; \
		(cd $$m && GOWORK=off $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...) || failed="$$failed $$m"; \
	done; \
	[ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

.PHONY: breaking
breaking: $(TOOLS)/buf ## buf breaking: the contracts against those of the previous release (deploy/PREVIOUS_RELEASE)
	@commit=$$(cat deploy/PREVIOUS_RELEASE); old=$$(mktemp -d); trap 'rm -rf "$$old"' EXIT; \
	git cat-file -e "$$commit^{commit}" 2>/dev/null || { \
		missing="the commit $$commit of deploy/PREVIOUS_RELEASE is not here; to get it: git fetch --unshallow, in a clone and not an archive"; \
		if [ "$${CI:-}" = true ]; then echo "make breaking: $$missing" >&2; exit 1; fi; \
		echo "left out: $$missing" >&2; exit 0; }; \
	git archive --format=tar "$$commit" buf.yaml proto | tar -x -C "$$old"; \
	$(TOOLS)/buf breaking --against "$$old"

.PHONY: generate
generate: $(TOOLS)/buf $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc $(TOOLS)/protoc-gen-grpc-gateway $(TOOLS)/protoc-gen-openapiv2 ## Go from the protos, REST routes and OpenAPI, the descriptions in the Python examples
	@PATH=$(TOOLS):$$PATH $(TOOLS)/buf generate
	@$(TOOLS)/buf build --path proto/shallot/executor/v1 --exclude-source-info --as-file-descriptor-set -o examples/executor-python/executor.binpb
	@$(TOOLS)/buf build --path proto/shallot/node/v1 --exclude-source-info --as-file-descriptor-set -o examples/client-python/node.binpb
	@[ ! -f gateway/buf.gen.yaml ] || PATH=$(TOOLS):$$PATH $(TOOLS)/buf generate --template gateway/buf.gen.yaml
	@[ ! -d gateway/internal/openapi/convert ] || (cd gateway && GOWORK=off go run ./internal/openapi/convert)

.PHONY: reference
reference: $(TOOLS)/buf ## docs/reference: every command, call, path, event and reason of an error, from the sources
	@image=$$(mktemp); trap 'rm -f "$$image"' EXIT; \
	$(TOOLS)/buf build --as-file-descriptor-set -o "$$image#format=binpb"; \
	(cd test && GOWORK=off go run ./cmd/reference -image "$$image" -out $(CURDIR)/docs/reference)
	@cd gateway && GOWORK=off go run ./internal/openapi/reference
	@cd cli && GOWORK=off go run ./internal/reference -markdown $(CURDIR)/docs/reference/cli.md

.PHONY: tidy
tidy: ## go mod tidy in every module
	@for m in $(MODULES) examples/client-go; do (cd $$m && GOWORK=off go mod tidy); done

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) $(CACHE) dist

$(TOOLS)/%: tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)
	@echo "build tool $*" >&2
	@cd tools && GOWORK=off go build -o $@ $$(GOWORK=off go list tool | grep '/$*$$')
	@touch $@
