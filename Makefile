# Each line also works typed by hand.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

.PHONY: help run dev build test test-fast test-month test-imports test-crash-long check advisories fuzz bench openapi dist setup-build setup-check setup-test

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

run: setup-build build ## Build and start the server with the first-hour example
	@exec examples/first-hour/start

dev: setup-build ## Start a debug build with the first-hour example
	cargo build
	@LINKSPAN_BIN=target/debug/linkspan exec examples/first-hour/start

build: ## Build the release binary
	cargo build --release --bin linkspan

test: setup-test ## Install what the tests need and run all of them
	@exec tests/run all

test-fast: setup-build ## The tests that need no service
	@exec tests/run fast

test-month: setup-build ## Every operation of the store on one that a month has filled
	@exec tests/run month

test-imports: setup-test ## Import thousands of real descriptions of APIs (some minutes)
	@exec tests/run imports

test-crash-long: setup-test ## The crash loops for an hour
	@CRASH_SECONDS=3600 exec tests/run crash

check: setup-check ## Format, pages, licences, bans, lints and the code's own pages
	@exec tests/run check

advisories: setup-check ## Known vulnerabilities of the dependencies (reads a database from the network)
	@exec tests/run advisories

fuzz: ## Run each fuzz target for half a minute (needs cargo-fuzz)
	@for target in $$(ls fuzz/corpus); do \
	  new=$$(mktemp -d); \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run $$target $$new fuzz/corpus/$$target -- -max_total_time=30 -timeout=10 -rss_limit_mb=1024 || exit 1; \
	  rm -r $$new; \
	done

bench: setup-test ## Measure against a bare hyper server, as ratios within one run
	@exec bench/run

openapi: ## Write openapi.json from the code
	UPDATE_OPENAPI=1 cargo test -p linkspan-server --test it openapi

dist: ## A release archive with binary, unit file and notes
	@exec deploy/dist

setup-build: ## What a bare machine lacks to build
	@exec tests/setup build

setup-check: ## What a bare machine lacks to check
	@exec tests/setup check

setup-test: ## What a bare machine lacks to test
	@exec tests/setup test
