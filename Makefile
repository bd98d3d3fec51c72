.PHONY: demo test prove-rotation bench soak scale image e2e lint deny chart-lint crds chart-readme reference faults plugin plugin-reference pictures ci help

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## from kubectl apply to an event delivered over mTLS (KEEP=1 stays up, CLUSTER=current uses yours)
	@tests/require cargo go cc openssl keytool curl $(if $(CLUSTER),kubectl)
	@CLUSTER='$(CLUSTER)' KEEP='$(KEEP)' examples/demo

test: ## units, and tests against a real API server
	@tests/require cargo go cc openssl keytool java python3 curl
	tests/cluster/build >/dev/null
	tests/tools/tool helm >/dev/null
	cargo test

prove-rotation: ## that rotations under load lose no event (SECONDS=60, SEED= repeats a run)
	@tests/require cargo go cc openssl keytool javac java
	tests/cluster/build >/dev/null
	cargo test --test prove_rotation -- --seconds '$(or $(SECONDS),60)' $(if $(SEED),--seed '$(SEED)')

bench: ## what an event costs beside its parts alone, with a table (QUICK=1 in a minute, ONLY=many a section)
	@tests/require cargo go cc openssl
	tests/cluster/build >/dev/null
	cargo bench --bench dispatcher -- $(if $(QUICK),--quick) $(if $(ONLY),--only '$(ONLY)')

soak: ## that nothing is lost and nothing grows for as long as you like (MINUTES=30, SEED= repeats a run)
	@tests/require cargo go cc openssl
	tests/cluster/build >/dev/null
	cargo test --test soak -- --minutes '$(or $(MINUTES),30)' $(if $(SEED),--seed '$(SEED)')

scale: ## what many webhooks cost in requests, memory and time (WEBHOOKS=1000 NAMESPACES=100 REST=180; QUICK=1 a few)
	@tests/require cargo go cc openssl keytool
	tests/cluster/build >/dev/null
	cargo test $(if $(QUICK),,--release) --test scale -- --webhooks '$(or $(WEBHOOKS),$(if $(QUICK),60,1000))' \
		--namespaces '$(or $(NAMESPACES),$(if $(QUICK),6,100))' --rest '$(or $(REST),$(if $(QUICK),20,180))'

image: ## the container image of this checkout, as an archive (NAME=… names it)
	@tests/require cargo go cc git python3
	image/build $(NAME)

plugin: ## kubectl-postrider for this machine, as an archive with the manifest that krew installs it by
	@tests/require cargo
	plugin/build

e2e: ## helm install on a real node, and events through it (root; IMAGE=… takes an archive)
	@tests/require cargo go cc git python3 openssl keytool curl
	@tests/node/node --check
	tests/node/e2e $(IMAGE)

faults: ## upgrades and faults on a real node while a sender never pauses, with a table (root; IMAGE=… takes an archive, BEFORE=… what to upgrade)
	@tests/require cargo go cc git python3 openssl keytool
	tests/node/faults $(IMAGE) $(BEFORE)

lint: ## formatting, clippy, generated files
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --test prove_rotation --test soak --test scale -- -D warnings # not among all: they are no part of make test
	cargo run --quiet -- crd | diff crds/outboundwebhooks.yaml - # otherwise: make crds
	diff crds/outboundwebhooks.yaml charts/postrider/files/outboundwebhooks.yaml # likewise
	cargo run --quiet -- crd --markdown | diff docs/reference.md - # otherwise: make reference

deny: ## licences, bans, sources and known advisories of the dependencies
	@tests/require cargo python3
	tests/deny

crds: ## write crds/ and the chart's copy anew from the types
	cargo run --quiet -- crd > crds/outboundwebhooks.yaml
	cp crds/outboundwebhooks.yaml charts/postrider/files/

chart-lint: ## the chart: helm lint, Kubernetes' schemas, its tests, generated files
	@tests/require go python3
	tests/tools/chart-lint

reference: ## write docs/reference.md anew from the types
	cargo run --quiet -- crd --markdown > docs/reference.md.new
	mv docs/reference.md.new docs/reference.md

chart-readme: ## write the chart's README anew from its values
	tests/tools/chart-readme > charts/postrider/README.md.new
	mv charts/postrider/README.md.new charts/postrider/README.md

plugin-reference: ## write docs/plugin-reference.md anew from what --help prints
	cargo run --quiet --bin kubectl-postrider -- reference > docs/plugin-reference.md.new
	mv docs/plugin-reference.md.new docs/plugin-reference.md

pictures: ## make the recording and the picture of the dashboard in docs/pictures anew (17 min; ONLY=terminal in one, ONLY=dashboard)
	@tests/require cargo go cc openssl keytool python3 curl
	docs/pictures/make $(ONLY)

ci: ## lint, chart-lint, deny, test, demo, prove-rotation, a small scale and e2e, in turn, with times
	.ci/run
