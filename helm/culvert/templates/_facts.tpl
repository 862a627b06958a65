{{/* What the values mean; "true" or nothing for a question. */}}

{{/* Whether this part's certificate is generated. */}}
{{- define "culvert.tlsGenerated" -}}
{{- $tls := .values.tls -}}
{{- if and .root.Values.evaluation.enabled (not (or $tls.existingSecret $tls.certManager.enabled $tls.plainText $tls.behindTls)) -}}true{{- end -}}
{{- end }}

{{/* The Secret with this part's certificate; empty without TLS. */}}
{{- define "culvert.tlsSecret" -}}
{{- $tls := .values.tls -}}
{{- if $tls.existingSecret -}}
{{ $tls.existingSecret }}
{{- else if $tls.certManager.enabled -}}
{{ include "culvert.partname" . }}-tls
{{- else if include "culvert.tlsGenerated" . -}}
{{ include "culvert.generatedTls" .root }}
{{- end -}}
{{- end }}

{{/* Whether Redis and Postgres are the trial's own. */}}
{{- define "culvert.ownRedis" -}}
{{- if and .Values.evaluation.enabled .Values.redis.enabled (not .Values.redis.addresses) -}}true{{- end -}}
{{- end }}

{{- define "culvert.ownPostgres" -}}
{{- if and .Values.evaluation.enabled .Values.broker.enabled (not .Values.postgres.existingSecret) -}}true{{- end -}}
{{- end }}

{{/* Secrets as {"name": …, "key": …}; nothing where there is none. */}}
{{- define "culvert.secret.accessToken" -}}
{{- $given := .Values.relay.admission.accessToken -}}
{{- if $given.existingSecret -}}
{{ dict "name" $given.existingSecret "key" $given.key | toJson }}
{{- else if .Values.evaluation.enabled -}}
{{ dict "name" (include "culvert.generated" .) "key" "access-token" | toJson }}
{{- end -}}
{{- end }}

{{- define "culvert.secret.redisPassword" -}}
{{- $given := .Values.redis.password -}}
{{- if $given.existingSecret -}}
{{ dict "name" $given.existingSecret "key" $given.key | toJson }}
{{- else if include "culvert.ownRedis" . -}}
{{ dict "name" (include "culvert.generated" .) "key" "redis-password" | toJson }}
{{- end -}}
{{- end }}

{{- define "culvert.secret.databaseUrl" -}}
{{- if include "culvert.ownPostgres" . -}}
{{ dict "name" (include "culvert.generated" .) "key" "database-url" | toJson }}
{{- else -}}
{{ dict "name" .Values.postgres.existingSecret "key" .Values.postgres.key | toJson }}
{{- end -}}
{{- end }}

{{- define "culvert.secret.dataKeys" -}}
{{- $given := .Values.broker.dataKeys -}}
{{- if $given.existingSecret -}}
{{ dict "name" $given.existingSecret "key" $given.key | toJson }}
{{- else -}}
{{ dict "name" (include "culvert.generated" .) "key" "data-keys" | toJson }}
{{- end -}}
{{- end }}

{{- define "culvert.secret.institutionPassword" -}}
{{- $given := .Values.broker.institution.password -}}
{{- if $given.existingSecret -}}
{{ dict "name" $given.existingSecret "key" $given.key | toJson }}
{{- else if .Values.evaluation.enabled -}}
{{ dict "name" (include "culvert.generated" .) "key" "institution-password" | toJson }}
{{- end -}}
{{- end }}

{{/* The authority that a pod of this cluster has to trust to reach a generated certificate. */}}
{{- define "culvert.secret.testCa" -}}
{{- if .Values.test.ca.existingSecret -}}
{{ dict "name" .Values.test.ca.existingSecret "key" .Values.test.ca.key | toJson }}
{{- else if include "culvert.tlsGenerated" (dict "root" . "values" .Values.relay) -}}
{{ dict "name" (include "culvert.generatedTls" .) "key" "ca.crt" | toJson }}
{{- end -}}
{{- end }}

{{- define "culvert.secret.keySetsCa" -}}
{{- $given := .Values.relay.admission.keySetsCa -}}
{{- if $given.existingSecret -}}
{{ dict "name" $given.existingSecret "key" $given.key | toJson }}
{{- else if and .Values.broker.enabled .Values.relay.admission.broker (include "culvert.tlsGenerated" (dict "root" . "values" .Values.broker)) -}}
{{ dict "name" (include "culvert.generatedTls" .) "key" "ca.crt" | toJson }}
{{- end -}}
{{- end }}

{{- define "culvert.relayUrl" -}}
{{- printf "%s://%s" "wss" (include "culvert.host" (dict "root" . "name" "relay" "values" .Values.relay)) -}}
{{- end }}

{{- define "culvert.brokerUrl" -}}
{{- printf "https://%s" (include "culvert.host" (dict "root" . "name" "broker-api" "values" .Values.broker)) -}}
{{- end }}

{{/* How many pods a part has at least, and the number to write down (nothing with autoscaling). */}}
{{- define "culvert.fewest" -}}
{{- if .values.autoscaling.enabled -}}
{{ int .values.autoscaling.minReplicas }}
{{- else -}}
{{ include "culvert.replicas" . }}
{{- end -}}
{{- end }}

{{- define "culvert.replicas" -}}
{{- if not (kindIs "invalid" .values.replicas) -}}
{{ int .values.replicas }}
{{- else if not .root.Values.redis.enabled -}}
1
{{- else -}}
{{ ternary 3 2 (eq .name "relay") }}
{{- end -}}
{{- end }}

{{/* Seconds that a drain takes, and seconds until the pod is killed. */}}
{{- define "culvert.drainSeconds" -}}
{{- $drain := .values.drain -}}
{{ add (int $drain.delaySeconds) (int $drain.windowSeconds) (mul 2 (int $drain.graceSeconds)) }}
{{- end }}

{{- define "culvert.graceSeconds" -}}
{{- if kindIs "invalid" .values.terminationGracePeriodSeconds -}}
{{ add 10 (int (include "culvert.drainSeconds" .)) }}
{{- else -}}
{{ int .values.terminationGracePeriodSeconds }}
{{- end -}}
{{- end }}

{{/* The address to listen on: both families where the service has them. */}}
{{- define "culvert.anyAddress" -}}
{{- $service := .values.service -}}
{{- if or (has $service.ipFamilyPolicy (list "PreferDualStack" "RequireDualStack")) (has "IPv6" $service.ipFamilies) -}}[::]{{- else -}}0.0.0.0{{- end -}}
{{- end }}

{{/* Ports of Redis, as a JSON list. */}}
{{- define "culvert.redisPorts" -}}
{{- $ports := list -}}
{{- if include "culvert.ownRedis" . -}}
{{- $ports = list 6379 -}}
{{- else -}}
{{- range .Values.redis.addresses -}}
{{- $authority := regexReplaceAll "^[a-z]+://" . "" | splitList "/" | first -}}
{{- $port := regexFind ":[0-9]+$" $authority | trimPrefix ":" -}}
{{- $ports = append $ports (int (default (ternary "26379" "6379" (eq $.Values.redis.mode "sentinel")) $port)) -}}
{{- end -}}
{{- if and (eq .Values.redis.mode "sentinel") (not .Values.redis.ports) -}}
{{- $ports = append $ports 6379 -}}
{{- end -}}
{{- range .Values.redis.ports -}}{{- $ports = append $ports (int .) -}}{{- end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end }}

{{/* Whether `helm test` can get in. */}}
{{- define "culvert.testable" -}}
{{- if and .Values.test.enabled (include "culvert.secret.accessToken" .) -}}true{{- end -}}
{{- end }}
