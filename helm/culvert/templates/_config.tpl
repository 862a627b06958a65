{{/* The programs' settings, as the TOML files that they read. */}}

{{/* A dictionary as TOML. JSON's strings, numbers, booleans and lists are TOML's. */}}
{{- define "culvert.toml" -}}
{{- range $key := keys . | sortAlpha }}
{{- $value := index $ $key }}
{{- if kindIs "float64" $value }}{{ $value = int64 $value }}{{ end }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}

{{/* What both programs are told about Redis. */}}
{{- define "culvert.redisSettings" -}}
{{- $redis := .Values.redis -}}
{{- $settings := dict -}}
{{- if $redis.enabled -}}
{{- if include "culvert.ownRedis" . -}}
{{- $_ := set $settings "redis" (list (printf "redis://%s:6379" (include "culvert.servicehost" (dict "root" . "name" "redis")))) -}}
{{- else -}}
{{- $_ := set $settings "redis" $redis.addresses -}}
{{- end -}}
{{- $_ := set $settings "redis-mode" $redis.mode -}}
{{- $_ := set $settings "redis-prefix" $redis.prefix -}}
{{- with $redis.sentinelMaster }}{{ $_ := set $settings "redis-sentinel-master" . }}{{ end -}}
{{- with $redis.user }}{{ $_ := set $settings "redis-user" . }}{{ end -}}
{{- if include "culvert.secret.redisPassword" . }}{{ $_ := set $settings "redis-password-file" "/etc/culvert/secrets/redis-password" }}{{ end -}}
{{- with $redis.sentinelUser }}{{ $_ := set $settings "redis-sentinel-user" . }}{{ end -}}
{{- if $redis.sentinelPassword.existingSecret }}{{ $_ := set $settings "redis-sentinel-password-file" "/etc/culvert/secrets/sentinel-password" }}{{ end -}}
{{- if $redis.ca.existingSecret }}{{ $_ := set $settings "redis-ca" "/etc/culvert/secrets/redis-ca.crt" }}{{ end -}}
{{- end -}}
{{- toJson $settings -}}
{{- end }}

{{/* What the images say in their environment, which wins over the file, has to be said there: "prefix" and a part. */}}
{{- define "culvert.pinnedEnv" -}}
{{- $any := include "culvert.anyAddress" . -}}
- {name: {{ .prefix }}_LISTEN, value: "{{ $any }}:8443"}
- {name: {{ .prefix }}_ADMIN_LISTEN, value: "{{ $any }}:9443"}
- {name: {{ .prefix }}_LOG_FORMAT, value: {{ index .values.settings "log-format" | default "json" | quote }}}
{{- end }}

{{/* What both are told about balancers, certificate and drain. */}}
{{- define "culvert.partSettings" -}}
{{- $settings := omit .values.settings "log-format" -}}
{{- with .values.proxyProtocolFrom }}{{ $_ := set $settings "proxy-protocol-from" . }}{{ end -}}
{{- if include "culvert.tlsSecret" . -}}
{{- $_ := set $settings "tls-certificate" "/etc/culvert/secrets/tls/tls.crt" -}}
{{- $_ := set $settings "tls-key" "/etc/culvert/secrets/tls/tls.key" -}}
{{- end -}}
{{- $_ := set $settings "drain-delay" (printf "%ds" (int .values.drain.delaySeconds)) -}}
{{- $_ := set $settings "drain-window" (printf "%ds" (int .values.drain.windowSeconds)) -}}
{{- $_ := set $settings "drain-grace" (printf "%ds" (int .values.drain.graceSeconds)) -}}
{{- $settings = merge $settings (include "culvert.redisSettings" .root | fromJson) -}}
{{- toJson $settings -}}
{{- end }}

{{- define "culvert.relaySettings" -}}
{{- $relay := .Values.relay -}}
{{- $part := dict "root" . "name" "relay" "values" $relay -}}
{{- $settings := include "culvert.partSettings" $part | fromJson -}}
{{- $names := $relay.names -}}
{{- if $relay.tls.plainText -}}
{{- $_ := set $settings "plain-text" true -}}
{{- $names = prepend $names (include "culvert.host" $part) -}}
{{- end -}}
{{- with $names }}{{ $_ := set $settings "names" . }}{{ end -}}
{{- $admission := $relay.admission -}}
{{- $keys := list -}}
{{- if and .Values.broker.enabled $admission.broker -}}
{{- $keys = append $keys (printf "%s/.well-known/jwks.json" (include "culvert.brokerUrl" .)) -}}
{{- end -}}
{{- $keys = concat $keys $admission.keySets -}}
{{- if $admission.keys.existingSecret -}}
{{- range $admission.keys.files }}{{ $keys = append $keys (printf "/etc/culvert/secrets/ticket-keys/%s" .) }}{{ end -}}
{{- end -}}
{{- with $keys }}{{ $_ := set $settings "ticket-keys" . }}{{ end -}}
{{- if include "culvert.secret.keySetsCa" . }}{{ $_ := set $settings "ticket-keys-ca" "/etc/culvert/secrets/key-sets-ca.crt" }}{{ end -}}
{{- if include "culvert.secret.accessToken" . }}{{ $_ := set $settings "access-token-file" "/etc/culvert/secrets/access-token" }}{{ end -}}
{{- if $admission.open }}{{ $_ := set $settings "open" true }}{{ end -}}
{{- toJson $settings -}}
{{- end }}

{{- define "culvert.brokerSettings" -}}
{{- $broker := .Values.broker -}}
{{- $part := dict "root" . "name" "broker-api" "values" $broker -}}
{{- $settings := include "culvert.partSettings" $part | fromJson -}}
{{- $_ := set $settings "public-url" (include "culvert.brokerUrl" .) -}}
{{- with $broker.names }}{{ $_ := set $settings "names" . }}{{ end -}}
{{- if $broker.tls.behindTls }}{{ $_ := set $settings "behind-tls" true }}{{ end -}}
{{- $_ := set $settings "database-url-file" "/etc/culvert/secrets/database-url" -}}
{{- $_ := set $settings "data-keys-file" "/etc/culvert/secrets/data-keys" -}}
{{- $_ := set $settings "institution" $broker.institution.name -}}
{{- if include "culvert.secret.institutionPassword" . }}{{ $_ := set $settings "institution-password-file" "/etc/culvert/secrets/institution-password" }}{{ end -}}
{{- $_ := set $settings "relays" ($broker.relays | default (list (include "culvert.relayUrl" .))) -}}
{{- $_ := set $settings "tenant" $broker.tenant -}}
{{- toJson $settings -}}
{{- end }}

{{/* Secrets as the sources of one projected volume: (list (list SECRET PATH) ...), SECRET as of culvert.secret.... */}}
{{- define "culvert.secretSources" -}}
{{- range $pair := . }}
{{- $secret := index $pair 0 | default "{}" | fromJson }}
{{- if $secret.name }}
- secret:
    name: {{ $secret.name }}
    items:
      - {key: {{ $secret.key | quote }}, path: {{ index $pair 1 | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Where Redis' secrets are found by both programs. */}}
{{- define "culvert.redisSecrets" -}}
{{- $redis := .Values.redis -}}
{{- if $redis.enabled }}
{{- include "culvert.secretSources" (list
      (list (include "culvert.secret.redisPassword" .) "redis-password")
      (list (dict "name" $redis.sentinelPassword.existingSecret "key" $redis.sentinelPassword.key | toJson) "sentinel-password")
      (list (dict "name" $redis.ca.existingSecret "key" $redis.ca.key | toJson) "redis-ca.crt")) }}
{{- end }}
{{- end }}

{{- define "culvert.tlsSources" -}}
{{- with include "culvert.tlsSecret" . }}
- secret:
    name: {{ . }}
    items:
      - {key: tls.crt, path: tls/tls.crt}
      - {key: tls.key, path: tls/tls.key}
{{- end }}
{{- end }}

{{/* The database's secrets, for the broker and for its migrations. */}}
{{- define "culvert.databaseSources" -}}
{{- $ca := .Values.postgres.ca -}}
{{- include "culvert.secretSources" (list
      (list (include "culvert.secret.databaseUrl" .) "database-url")
      (list (include "culvert.secret.dataKeys" .) "data-keys")
      (list (dict "name" $ca.existingSecret "key" $ca.key | toJson) "postgres-ca.crt")) }}
{{- end }}
