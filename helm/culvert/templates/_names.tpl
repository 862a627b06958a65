{{/* Names, labels and images. Most take a part: (dict "root" $ "name" "relay" "values" .Values.relay). */}}

{{- define "culvert.chart" -}}
{{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "culvert.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "culvert.partname" -}}
{{ include "culvert.fullname" .root }}-{{ .name }}
{{- end }}

{{- define "culvert.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "culvert.labels" -}}
{{ include "culvert.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: culvert
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ include "culvert.chart" .root }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of pods: none that changes with the chart alone, which would start new ones. */}}
{{- define "culvert.podLabels" -}}
{{ include "culvert.selector" . }}
app.kubernetes.io/part-of: culvert
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* metadata of an object; further "labels", "annotations", "suffix" if given. */}}
{{- define "culvert.metadata" -}}
name: {{ include "culvert.partname" . }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "culvert.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "culvert.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.imageRegistry -}}
{{- $parts := splitList "/" $repository -}}
{{- $first := first $parts -}}
{{- if and (gt (len $parts) 1) (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) -}}
{{- $parts = rest $parts -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (join "/" $parts) -}}
{{- end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository (default .root.Chart.AppVersion .image.tag) }}
{{- end -}}
{{- end }}

{{- define "culvert.serviceAccountName" -}}
{{- if .values.serviceAccount.name -}}
{{ .values.serviceAccount.name }}
{{- else if .values.serviceAccount.create -}}
{{ include "culvert.partname" . }}
{{- else -}}
default
{{- end -}}
{{- end }}


{{/* The name of a service of this chart, as pods of the cluster know it. */}}
{{- define "culvert.servicehost" -}}
{{ include "culvert.partname" . }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end }}

{{- define "culvert.host" -}}
{{ .values.host | default (include "culvert.servicehost" .) }}
{{- end }}

{{/* Name of the Secret in which a trial keeps what it generated. */}}
{{- define "culvert.generated" -}}
{{ include "culvert.fullname" . }}-evaluation
{{- end }}

{{- define "culvert.generatedTls" -}}
{{ include "culvert.fullname" . }}-evaluation-tls
{{- end }}
