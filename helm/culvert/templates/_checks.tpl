{{/*
Everything that is wrong with the values, a sentence each. All of them at once, so that an operator edits once.
*/}}
{{- define "culvert.problems" -}}
{{- $problems := list -}}
{{- $trial := .Values.evaluation.enabled -}}
{{- $parts := list (dict "root" . "name" "relay" "key" "relay" "values" .Values.relay) -}}
{{- if .Values.broker.enabled -}}
{{- $parts = append $parts (dict "root" . "name" "broker-api" "key" "broker" "values" .Values.broker) -}}
{{- end -}}

{{- range $part := $parts -}}
{{- $values := $part.values -}}
{{- $key := $part.key -}}
{{- $plain := ternary "plainText" "behindTls" (eq $key "relay") -}}

{{- if and (not $trial) (not $values.host) -}}
{{- $problems = append $problems (printf "%s.host is missing: the host name by which it is reached, such as %s.example.org" $key $key) -}}
{{- end -}}

{{- $sources := list -}}
{{- if $values.tls.existingSecret }}{{ $sources = append $sources "existingSecret" }}{{ end -}}
{{- if $values.tls.certManager.enabled }}{{ $sources = append $sources "certManager" }}{{ end -}}
{{- if index $values.tls $plain }}{{ $sources = append $sources $plain }}{{ end -}}
{{- if gt (len $sources) 1 -}}
{{- $problems = append $problems (printf "%s.tls has %s: choose one of them" $key (join " and " $sources)) -}}
{{- else if and (not $trial) (empty $sources) -}}
{{- $problems = append $problems (printf "%s.tls has no certificate: give tls.existingSecret or tls.certManager, or tls.%s if TLS ends before it" $key $plain) -}}
{{- end -}}
{{- if and $values.tls.certManager.enabled (not $values.tls.certManager.issuerRef.name) -}}
{{- $problems = append $problems (printf "%s.tls.certManager needs issuerRef.name, the issuer that signs" $key) -}}
{{- end -}}
{{- if and $values.tls.certManager.enabled (not $values.host) -}}
{{- $problems = append $problems (printf "%s.tls.certManager needs %s.host, the name to certify" $key $key) -}}
{{- end -}}
{{- if $values.tlsRoute.enabled -}}
{{- if index $values.tls $plain -}}
{{- $problems = append $problems (printf "%s.tlsRoute leaves TLS to the pods, and %s.tls.%s says that they have none: give a certificate, or another route" $key $key $plain) -}}
{{- end -}}
{{- if not $values.tlsRoute.parentRefs -}}
{{- $problems = append $problems (printf "%s.tlsRoute needs parentRefs, the Gateway that it belongs to" $key) -}}
{{- end -}}
{{- end -}}

{{- $scaling := $values.autoscaling -}}
{{- if $scaling.enabled -}}
{{- if not (kindIs "invalid" $values.replicas) -}}
{{- $problems = append $problems (printf "%s.replicas is fixed and %s.autoscaling is on: leave replicas at null, or turn autoscaling off" $key $key) -}}
{{- end -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- $problems = append $problems (printf "%s.autoscaling.minReplicas (%d) is more than maxReplicas (%d)" $key (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if not (or $scaling.cpuPercent $scaling.connections.perPod) -}}
{{- $problems = append $problems (printf "%s.autoscaling has nothing to follow: give cpuPercent or connections.perPod" $key) -}}
{{- end -}}
{{- if and $scaling.cpuPercent (not (dig "requests" "cpu" "" ($values.resources | default dict))) -}}
{{- $problems = append $problems (printf "%s.autoscaling.cpuPercent is a share of %s.resources.requests.cpu, which is missing" $key $key) -}}
{{- end -}}
{{- end -}}

{{- $fewest := int (include "culvert.fewest" $part) -}}
{{- $most := ternary (int $scaling.maxReplicas) $fewest $scaling.enabled -}}
{{- if and (not $.Values.redis.enabled) (gt $most 1) -}}
{{- $problems = append $problems (printf "%s has up to %d pods and redis.enabled is false: without Redis there can be one only" $key $most) -}}
{{- end -}}

{{- if $values.pdb.enabled -}}
{{- $min := $values.pdb.minAvailable -}}
{{- $max := $values.pdb.maxUnavailable -}}
{{- if and (not (kindIs "invalid" $min)) (not (kindIs "invalid" $max)) -}}
{{- $problems = append $problems (printf "%s.pdb has minAvailable and maxUnavailable: choose one of them" $key) -}}
{{- else if not (kindIs "invalid" $min) -}}
{{- $stay := 0 -}}
{{- if hasSuffix "%" (toString $min) -}}
{{- $stay = divf (mulf (trimSuffix "%" $min | float64) $fewest) 100 | ceil | int -}}
{{- else -}}
{{- $stay = int $min -}}
{{- end -}}
{{- if ge $stay $fewest -}}
{{- $problems = append $problems (printf "%s.pdb.minAvailable (%v) keeps all of %d pods, so that no node could ever be drained: set it lower, or give maxUnavailable: 1" $key $min $fewest) -}}
{{- end -}}
{{- else if and (not (kindIs "invalid" $max)) (eq (trimSuffix "%" (toString $max) | int) 0) -}}
{{- $problems = append $problems (printf "%s.pdb.maxUnavailable (%v) lets no pod go, so that no node could ever be drained: set it to 1 or more" $key $max) -}}
{{- end -}}
{{- end -}}

{{- $surge := $values.rollingUpdate.maxSurge | toString | trimSuffix "%" | int -}}
{{- if and (eq $surge 0) (eq ($values.rollingUpdate.maxUnavailable | toString | trimSuffix "%" | int) 0) -}}
{{- $problems = append $problems (printf "%s.rollingUpdate allows neither a pod more nor a pod fewer, so that no rollout could begin: set maxSurge or maxUnavailable" $key) -}}
{{- end -}}

{{- $drain := int (include "culvert.drainSeconds" $part) -}}
{{- $grace := int (include "culvert.graceSeconds" $part) -}}
{{- if lt $grace $drain -}}
{{- $problems = append $problems (printf "%s.terminationGracePeriodSeconds (%d) is shorter than a drain (%d, of %s.drain): leave it at null" $key $grace $drain $key) -}}
{{- end -}}
{{- end -}}

{{- $admission := .Values.relay.admission -}}
{{- $tickets := or (and .Values.broker.enabled $admission.broker) $admission.keySets $admission.keys.existingSecret -}}
{{- $token := include "culvert.secret.accessToken" . -}}
{{- if not (or $tickets $token) -}}
{{- if $admission.open -}}
{{- $problems = append $problems "relay.admission.open needs accessToken.existingSecret, or everybody could use these relays" -}}
{{- else -}}
{{- $problems = append $problems "relay.admission lets nobody in: enable the broker, or give keySets, keys.existingSecret or accessToken.existingSecret" -}}
{{- end -}}
{{- else if and $admission.open (not $token) -}}
{{- $problems = append $problems "relay.admission.open needs accessToken.existingSecret, or everybody could use these relays" -}}
{{- end -}}

{{- $redis := .Values.redis -}}
{{- if $redis.enabled -}}
{{- if not $redis.addresses -}}
{{- if not $trial -}}
{{- $problems = append $problems "redis.addresses is missing: give redis:// or rediss:// addresses, or set redis.enabled to false for a single relay" -}}
{{- else if ne $redis.mode "standalone" -}}
{{- $problems = append $problems (printf "redis.mode is %s and redis.addresses is empty: the evaluation's own Redis is standalone" $redis.mode) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $redis.mode "sentinel") (not $redis.sentinelMaster) -}}
{{- $problems = append $problems "redis.mode is sentinel and redis.sentinelMaster is missing: what the Sentinels call the master" -}}
{{- end -}}
{{- if and (ne $redis.mode "sentinel") (or $redis.sentinelMaster $redis.sentinelUser $redis.sentinelPassword.existingSecret) -}}
{{- $problems = append $problems (printf "redis.sentinelMaster, sentinelUser and sentinelPassword are for redis.mode sentinel, and it is %s" $redis.mode) -}}
{{- end -}}
{{- if and (eq $redis.mode "standalone") (gt (len $redis.addresses) 1) -}}
{{- $problems = append $problems "redis.addresses has several servers and redis.mode is standalone: name one, or choose sentinel or cluster" -}}
{{- end -}}
{{- $tls := 0 -}}
{{- range $redis.addresses }}{{ if hasPrefix "rediss://" . }}{{ $tls = add1 $tls }}{{ end }}{{ end -}}
{{- if and (gt (int $tls) 0) (lt (int $tls) (len $redis.addresses)) -}}
{{- $problems = append $problems "redis.addresses mixes redis:// and rediss://: use the same for all" -}}
{{- end -}}
{{- if and $redis.ca.existingSecret (eq (int $tls) 0) -}}
{{- $problems = append $problems "redis.ca is given and redis:// speaks no TLS: use rediss:// addresses" -}}
{{- end -}}
{{- if and $redis.user (not $redis.password.existingSecret) -}}
{{- $problems = append $problems "redis.user needs redis.password.existingSecret, the Secret with its password" -}}
{{- end -}}
{{- if and $redis.sentinelUser (not $redis.sentinelPassword.existingSecret) -}}
{{- $problems = append $problems "redis.sentinelUser needs redis.sentinelPassword.existingSecret, the Secret with its password" -}}
{{- end -}}
{{- end -}}

{{- if and .Values.broker.enabled (not $trial) -}}
{{- if not .Values.postgres.existingSecret -}}
{{- $problems = append $problems "postgres.existingSecret is missing: a Secret with the URL of the broker's database" -}}
{{- end -}}
{{- if not .Values.broker.dataKeys.existingSecret -}}
{{- $problems = append $problems "broker.dataKeys.existingSecret is missing: a Secret with a key from openssl rand -base64 32, of which you keep a copy" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.broker.ingress.enabled (not .Values.broker.host) -}}
{{- $problems = append $problems "broker.ingress needs broker.host" -}}
{{- end -}}

{{- if and .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- $problems = append $problems "monitoring has podMonitor and serviceMonitor: everything would be scraped twice, choose one of them" -}}
{{- end -}}
{{- toJson $problems -}}
{{- end }}
