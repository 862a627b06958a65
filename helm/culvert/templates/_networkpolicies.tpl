{{/* Rules that several NetworkPolicies have. */}}

{{- define "culvert.ingressRules" -}}
- ports:
    - {port: 8443, protocol: TCP}
  {{- with .Values.networkPolicy.clientsFrom }}
  from:
    {{- toYaml . | nindent 4 }}
    # Pods of this release: relays ask the broker for its keys, and the test its relays.
    - podSelector:
        matchLabels:
          app.kubernetes.io/instance: {{ $.Release.Name }}
          app.kubernetes.io/part-of: culvert
  {{- end }}
{{- with .Values.networkPolicy.metricsFrom }}
- ports:
    - {port: 9443, protocol: TCP}
  from:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{- define "culvert.dnsRule" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  {{- with .Values.networkPolicy.dnsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "culvert.redisRule" -}}
{{- if .Values.redis.enabled -}}
- ports:
    {{- range include "culvert.redisPorts" . | fromJsonArray }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
  {{- if include "culvert.ownRedis" . }}
  to:
    - podSelector:
        matchLabels:
          {{- include "culvert.selector" (dict "root" . "name" "redis") | nindent 10 }}
  {{- else }}
  {{- with .Values.networkPolicy.redisTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "culvert.postgresRule" -}}
{{- if include "culvert.ownPostgres" . -}}
- ports:
    - {port: 5432, protocol: TCP}
  to:
    - podSelector:
        matchLabels:
          {{- include "culvert.selector" (dict "root" . "name" "postgres") | nindent 10 }}
{{- else -}}
- ports:
    - {port: {{ .Values.postgres.port }}, protocol: TCP}
  {{- with .Values.networkPolicy.postgresTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
