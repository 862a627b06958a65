#!/usr/bin/env bash
# Checks the chart on a real cluster: whichever the current context of kubectl names, in a namespace of its own.
#
#   deploy/check-cluster.sh [--registry PREFIX] [--previous CHART] [--keep]
#
#   --registry PREFIX   where the cluster finds all images: put before culvert/relay, culvert/broker-api, culvert/cli
#                       and culvert/loadtest (deploy/README.md says how to build them), and before valkey/valkey
#                       and library/postgres, which without it come from the public registry
#   --previous CHART    folder or archive of the chart to upgrade from; without it this chart under a lower version
#   --keep              leave the namespace as it is at the end
#
# What it does, in this order: installs while Redis and Postgres are away (pods wait and say so, nothing is
# restarted), lets them come, runs helm test, upgrades from the previous chart (secrets and users are kept), upgrades
# with a migration that fails (no new pod is started), and restarts all relays under load (no message is lost).
#
# Needs kubectl, helm (CULVERT_HELM names another one) and jq.
# Exit codes: 0 all held, 1 something did not, 64 wrong use, 69 something needed is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

registry='' previous='' keep=0
while [ $# -gt 0 ]; do
    case "$1" in
        --registry | --previous)
            [ $# -ge 2 ] || { echo "check-cluster.sh: $1 needs a value" >&2; exit 64; }
            case "$1" in --registry) registry=$2 ;; --previous) previous=$2 ;; esac
            shift 2
            ;;
        --keep) keep=1; shift ;;
        -h | --help) sed -n '2,/^set -e/s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "check-cluster.sh: unknown argument '$1'; see --help" >&2; exit 64 ;;
    esac
done

chart=$PWD/helm/culvert
namespace=culvert-check-$$
release=culvert
work=$(mktemp -d)
helm=${CULVERT_HELM:-helm}

say() { printf '\n== %s\n' "$*"; }
missing() { echo "check-cluster.sh: $*" >&2; exit 69; }
fail() {
    echo "check-cluster.sh: $*" >&2
    kubectl -n "$namespace" get pods -o wide >&2 || true
    kubectl -n "$namespace" get events --sort-by .lastTimestamp | tail -n 30 >&2 || true
    exit 1
}

for program in kubectl "$helm" jq; do
    command -v "$program" >/dev/null || missing "$program is missing"
done
kubectl version >/dev/null 2>&1 || missing "the cluster of $(kubectl config current-context 2>/dev/null || echo 'no context') does not answer"

tidy() {
    local status=$?
    if [ "$keep" = 1 ]; then
        echo "The namespace $namespace stays."
    elif kubectl get namespace "$namespace" >/dev/null 2>&1; then
        kubectl delete namespace "$namespace" --wait=false >/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap tidy EXIT

k() { kubectl -n "$namespace" "$@"; }

# Polls a command until it succeeds, at most so many seconds.
within() {
    local seconds=$1 what=$2
    shift 2
    local end=$((SECONDS + seconds))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || fail "not within $seconds s: $what"
        sleep 2
    done
}

pods() { k get pods -l "app.kubernetes.io/component=$1" -o json; }

# The names of the pods of a component, sorted.
names() { pods "$1" | jq -r '.items[].metadata.name' | sort; }

# The same without those that are on their way out: after a rollout the old ones still drain.
staying() { pods "$1" | jq -r '.items[] | select(.metadata.deletionTimestamp == null).metadata.name' | sort; }

# Whether every container of a component has been started at most once.
never_restarted() {
    pods "$1" | jq -e '[.items[].status | (.containerStatuses, .initContainerStatuses)[]?.restartCount] | add == 0' >/dev/null
}

exist() { [ "$(names "$1" | wc -l)" -ge "$2" ]; }

relays_say() { k logs -l app.kubernetes.io/component=relay --tail=-1 2>/dev/null | grep "$1" >/dev/null; }

broker() {
    k exec "deploy/$release-broker-api" -c broker-api -- \
        /culvert-broker-api --config /etc/culvert/config/broker-api.toml "$@"
}

# What must not change: everything in the Secrets, without what Kubernetes notes beside it.
secrets() { k get secrets -l app.kubernetes.io/instance=$release -o json | jq -S '[.items[] | {name: .metadata.name, data}]'; }

# Whether none of the pods in a list is there any more, not even on its way out.
gone() { [ -z "$(names relay | comm -12 - "$1")" ]; }

settled() {
    k rollout status "deployment/$release-relay" --timeout=600s
    k rollout status "deployment/$release-broker-api" --timeout=600s
}

cat >"$work/values.yaml" <<YAML
imageRegistry: "$registry"
relay:
  service: {type: ClusterIP}
  settings: {max-connections-per-source: 18000, handshakes-per-source: unlimited}
broker:
  service: {type: ClusterIP}
YAML

if [ -z "$previous" ]; then
    previous=$work/previous
    cp -r "$chart" "$previous"
    sed -i 's/^version: .*/version: 0.0.1/' "$previous/Chart.yaml"
fi

# Installs with Redis and Postgres at no replica: Helm hands the manifests through this program.
mkdir "$work/away"
cat >"$work/away/kustomization.yaml" <<YAML
resources: [all.yaml]
replicas:
  - {name: $release-redis, count: 0}
  - {name: $release-postgres, count: 0}
YAML
cat >"$work/away/render" <<SH
#!/bin/sh
cat >"$work/away/all.yaml" && exec kubectl kustomize "$work/away"
SH
chmod +x "$work/away/render"

say "Installing $previous into $namespace, without Redis and Postgres"
"$helm" install "$release" "$previous" --namespace "$namespace" --create-namespace --values "$work/values.yaml" \
    --post-renderer "$work/away/render" >"$work/notes"
within 120 "three relays" exist relay 3
within 120 "two brokers" exist broker-api 2
within 120 "relays that say what they wait for" relays_say "serves nobody until"
sleep 45 # Long enough for a crash, or a probe that gives up, to be seen.
for component in relay broker-api; do
    never_restarted "$component" || fail "pods of $component were restarted while Redis and Postgres were away"
done
[ "$(pods relay | jq '[.items[].status.conditions[] | select(.type == "Ready" and .status == "True")] | length')" = 0 ] \
    || fail "a relay is ready without Redis"

say "Letting them come"
k scale "deployment/$release-redis" "statefulset/$release-postgres" --replicas=1
settled
for component in relay broker-api; do
    never_restarted "$component" || fail "pods of $component were restarted when Redis and Postgres came"
done

say "helm test"
"$helm" test "$release" --namespace "$namespace" --logs --timeout 3m

say "Upgrading to this chart"
broker user create keeper --admin --generate-password >/dev/null
secrets >"$work/secrets-before"
"$helm" upgrade "$release" "$chart" --namespace "$namespace" --values "$work/values.yaml" --wait --timeout 15m >/dev/null
settled
secrets >"$work/secrets-after"
cmp -s "$work/secrets-before" "$work/secrets-after" || fail "the upgrade changed secrets"
broker user list --json | grep '"keeper"' >/dev/null || fail "the upgrade lost a user"
"$helm" test "$release" --namespace "$namespace" --logs --timeout 3m

say "Upgrading with a migration that fails"
staying relay >"$work/relays-before"
staying broker-api >"$work/brokers-before"
generation=$(k get "deployment/$release-broker-api" -o jsonpath='{.metadata.generation}')
# A database that refuses whoever asks; the settings of the relay change, so that its pods would be new ones.
k create secret generic refused \
    --from-literal=database-url="postgres://nobody:wrong@$release-postgres.$namespace.svc:5432/nothing"
if "$helm" upgrade "$release" "$chart" --namespace "$namespace" --values "$work/values.yaml" \
    --set postgres.existingSecret=refused --set broker.migrations.activeDeadlineSeconds=60 \
    --set relay.settings.members-listed=200 --timeout 5m >"$work/refused" 2>&1; then
    fail "the upgrade went on although its migration failed"
fi
grep -i 'pre-upgrade' "$work/refused" >/dev/null || fail "the upgrade failed for another reason: $(cat "$work/refused")"
staying relay | cmp -s - "$work/relays-before" || fail "the failed upgrade replaced relays"
staying broker-api | cmp -s - "$work/brokers-before" || fail "the failed upgrade replaced brokers"
[ "$(k get "deployment/$release-broker-api" -o jsonpath='{.metadata.generation}')" = "$generation" ] \
    || fail "the failed upgrade changed the deployment of the broker"
k delete job "$release-migrations" --ignore-not-found >/dev/null

say "Restarting all relays under load"
"$helm" upgrade "$release" "$chart" --namespace "$namespace" --values "$work/values.yaml" --wait --timeout 15m >/dev/null
settled
# In the cluster, so that no address of it has to be known here.
k apply -f - <<YAML
apiVersion: batch/v1
kind: Job
metadata:
  name: load
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      containers:
        - name: load
          image: "${registry:+$registry/}culvert/loadtest:$(sed -n 's/^appVersion: "\(.*\)"/\1/p' "$chart/Chart.yaml")"
          args:
            - steady
            - --url=wss://$release-relay.$namespace.svc.cluster.local
            - --ca=/secrets/ca.crt
            - --access-token-file=/secrets/access-token
            - --mode=sessions
            - --pairs=50
            - --rate=500
            - --duration=4m
            - --no-html
            - --quiet
          volumeMounts:
            - {name: secrets, mountPath: /secrets, readOnly: true}
            # The load puts the authority there for its peers; the image has no such folder.
            - {name: tmp, mountPath: /tmp}
      volumes:
        - name: tmp
          emptyDir: {}
        - name: secrets
          projected:
            sources:
              - secret: {name: $release-evaluation, items: [{key: access-token, path: access-token}]}
              - secret: {name: $release-evaluation-tls, items: [{key: ca.crt, path: ca.crt}]}
YAML
loaded() { [ -n "$(k get job load -o jsonpath="{.status.conditions[?(@.type=='$1')].status}")" ]; }
within 120 "the load to run" k wait pod -l job-name=load --for=condition=Ready --timeout=1s
names relay >"$work/relays-before"
sleep 20 # Sessions are up, and messages under way.
if loaded Complete || loaded Failed; then
    fail "the load ended before the rollout began: $(k logs job/load)"
fi
k rollout restart "deployment/$release-relay"
k rollout status "deployment/$release-relay" --timeout=600s
within 120 "the old relays to be gone" gone "$work/relays-before"
if loaded Complete || loaded Failed; then
    fail "the load ended before the rollout did: $(k logs job/load)"
fi
ended() { loaded Complete || loaded Failed; }
within 360 "the load to end" ended
k logs job/load
loaded Complete || fail "messages were lost in the rollout"

say "All held"
