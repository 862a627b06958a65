{{/* What pods have in common. */}}

{{- define "culvert.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "culvert.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A volume of Secrets; nothing if there are none. (dict "name" … "sources" …) */}}
{{- define "culvert.secretsVolume" -}}
{{- with regexReplaceAll "\\n\\s*\\n" .sources "\n" | trim -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- end }}

{{/* Environment by which Postgres' authority is trusted. */}}
{{- define "culvert.postgresEnv" -}}
{{- if .Values.postgres.ca.existingSecret }}
- {name: PGSSLROOTCERT, value: /etc/culvert/secrets/postgres-ca.crt}
- {name: PGSSLMODE, value: verify-full}
{{- end }}
{{- end }}

{{/* The container that makes and changes the tables. It needs none of the broker's other settings. */}}
{{- define "culvert.migrateContainer" -}}
name: migrate
image: {{ include "culvert.image" (dict "root" . "image" .Values.broker.image) }}
imagePullPolicy: {{ .Values.broker.image.pullPolicy }}
args: [migrate]
env:
  - {name: CULVERT_BROKER_LOG_FORMAT, value: {{ index .Values.broker.settings "log-format" | default "json" | quote }}}
  - {name: CULVERT_BROKER_LISTEN, value: "127.0.0.1:8443"}
  - {name: CULVERT_BROKER_PLAIN_TEXT, value: "true"}
  - {name: CULVERT_BROKER_DATABASE_URL_FILE, value: /etc/culvert/secrets/database-url}
  - {name: CULVERT_BROKER_DATA_KEYS_FILE, value: /etc/culvert/secrets/data-keys}
  {{- with include "culvert.postgresEnv" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
securityContext:
  {{- include "culvert.containerSecurity" . | nindent 2 }}
resources:
  {{- toYaml .Values.broker.resources | nindent 2 }}
volumeMounts:
  - {name: secrets, mountPath: /etc/culvert/secrets, readOnly: true}
  {{- with .Values.broker.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Where pods of a part run. */}}
{{- define "culvert.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "culvert.probe" -}}
httpGet: {path: {{ .path }}, port: admin}
{{ toYaml .timing }}
{{- end }}

{{- define "culvert.spread" -}}
{{- $part := . -}}
{{- $constraints := list -}}
{{- range $key, $label := dict "zones" "topology.kubernetes.io/zone" "nodes" "kubernetes.io/hostname" }}
{{- with index $part.values.topologySpread $key }}
- maxSkew: 1
  topologyKey: {{ $label }}
  whenUnsatisfiable: {{ . }}
  # Of one version: the pods of a rollout's old version do not count.
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "culvert.selector" $part | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The deployment of a part. Beside root, name and values it takes "config" (the text of its file), "sources" (of
its Secrets), "prefix" (of the variables), "env" and "initContainers".
*/}}
{{- define "culvert.deployment" -}}
{{- $root := .root -}}
{{- $values := .values -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "culvert.metadata" (merge (dict "labels" $values.labels "annotations" $values.annotations) .) | nindent 2 }}
spec:
  {{- if not $values.autoscaling.enabled }}
  replicas: {{ include "culvert.replicas" . }}
  {{- end }}
  minReadySeconds: 5
  revisionHistoryLimit: 5
  # Longer than the init container waits for a database.
  progressDeadlineSeconds: 900
  strategy:
    {{- if $root.Values.redis.enabled }}
    type: RollingUpdate
    rollingUpdate:
      maxSurge: {{ $values.rollingUpdate.maxSurge }}
      maxUnavailable: {{ $values.rollingUpdate.maxUnavailable }}
    {{- else }}
    # Without Redis there must never be two.
    type: Recreate
    {{- end }}
  selector:
    matchLabels:
      {{- include "culvert.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "culvert.podLabels" . | nindent 8 }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        # New settings start new pods.
        checksum/config: {{ sha256sum .config }}
        {{- with merge (dict) $values.podAnnotations $root.Values.commonAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "culvert.serviceAccountName" . }}
      automountServiceAccountToken: false
      # The variables that Kubernetes makes of service names could be taken for settings.
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ include "culvert.graceSeconds" . }}
      securityContext:
        {{- include "culvert.podSecurity" . | nindent 8 }}
      {{- with include "culvert.placement" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with include "culvert.spread" . | trim }}
      topologySpreadConstraints:
        {{- . | nindent 8 }}
      {{- end }}
      {{- with .initContainers }}
      initContainers:
        {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .name }}
          image: {{ include "culvert.image" (dict "root" $root "image" $values.image) }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          args: [--config, /etc/culvert/config/{{ .name }}.toml]
          env:
            {{- include "culvert.pinnedEnv" . | nindent 12 }}
            {{- with .env | trim }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with $values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with $values.extraEnvFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - {name: tls, containerPort: 8443, protocol: TCP}
            - {name: admin, containerPort: 9443, protocol: TCP}
          startupProbe:
            {{- include "culvert.probe" (dict "path" "/livez" "timing" $values.probes.startup) | nindent 12 }}
          livenessProbe:
            {{- include "culvert.probe" (dict "path" "/livez" "timing" $values.probes.liveness) | nindent 12 }}
          readinessProbe:
            {{- include "culvert.probe" (dict "path" "/readyz" "timing" $values.probes.readiness) | nindent 12 }}
          securityContext:
            {{- include "culvert.containerSecurity" . | nindent 12 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /etc/culvert/config, readOnly: true}
            {{- if trim .sources }}
            - {name: secrets, mountPath: /etc/culvert/secrets, readOnly: true}
            {{- end }}
            {{- with $values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap:
            name: {{ include "culvert.partname" . }}
        {{- with include "culvert.secretsVolume" . }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}

{{/* Beside the deployment: its file, account, service, certificate, route, budget and autoscaler. */}}
{{- define "culvert.beside" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $service := $values.service -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "culvert.metadata" . | nindent 2 }}
data:
  {{ .name }}.toml: |
    {{- .config | nindent 4 }}
{{- if $values.serviceAccount.create }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "culvert.serviceAccountName" . }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "culvert.labels" . | nindent 4 }}
  {{- with merge (dict) $values.serviceAccount.annotations $root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "culvert.metadata" (merge (dict "annotations" $service.annotations) .) | nindent 2 }}
spec:
  type: {{ $service.type }}
  {{- if ne $service.type "ClusterIP" }}
  externalTrafficPolicy: {{ $service.externalTrafficPolicy }}
  {{- end }}
  {{- if eq $service.type "LoadBalancer" }}
  {{- with $service.loadBalancerClass }}
  loadBalancerClass: {{ . }}
  {{- end }}
  {{- with $service.loadBalancerSourceRanges }}
  loadBalancerSourceRanges:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $service.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
  {{- end }}
  {{- with $service.ipFamilies }}
  ipFamilies:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - name: tls
      port: {{ $service.port }}
      targetPort: tls
      protocol: TCP
      {{- if and (ne $service.type "ClusterIP") $service.nodePort }}
      nodePort: {{ $service.nodePort }}
      {{- end }}
  selector:
    {{- include "culvert.selector" . | nindent 4 }}
{{- if $values.tls.certManager.enabled }}
{{- $issue := $values.tls.certManager }}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  {{- include "culvert.metadata" . | nindent 2 }}
spec:
  secretName: {{ include "culvert.tlsSecret" . }}
  dnsNames:
    {{- range prepend $values.names (include "culvert.host" .) | uniq }}
    - {{ . | quote }}
    {{- end }}
  duration: {{ $issue.duration }}
  renewBefore: {{ $issue.renewBefore }}
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  usages: [digital signature, server auth]
  issuerRef:
    name: {{ $issue.issuerRef.name }}
    kind: {{ $issue.issuerRef.kind }}
    group: {{ $issue.issuerRef.group }}
{{- end }}
{{- if $values.tlsRoute.enabled }}
---
apiVersion: gateway.networking.k8s.io/{{ $values.tlsRoute.apiVersion }}
kind: TLSRoute
metadata:
  {{- include "culvert.metadata" (merge (dict "annotations" $values.tlsRoute.annotations) .) | nindent 2 }}
spec:
  parentRefs:
    {{- toYaml $values.tlsRoute.parentRefs | nindent 4 }}
  hostnames:
    {{- range prepend $values.names (include "culvert.host" .) | uniq }}
    - {{ . | quote }}
    {{- end }}
  rules:
    - backendRefs:
        - name: {{ include "culvert.partname" . }}
          port: {{ $service.port }}
{{- end }}
{{- if $values.pdb.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "culvert.metadata" . | nindent 2 }}
spec:
  {{- if not (kindIs "invalid" $values.pdb.minAvailable) }}
  minAvailable: {{ $values.pdb.minAvailable }}
  {{- else }}
  maxUnavailable: {{ kindIs "invalid" $values.pdb.maxUnavailable | ternary 1 $values.pdb.maxUnavailable }}
  {{- end }}
  # A pod that is not ready keeps nobody from draining its node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "culvert.selector" . | nindent 6 }}
{{- end }}
{{- if $values.autoscaling.enabled }}
{{- $scaling := $values.autoscaling }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "culvert.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "culvert.partname" . }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    {{- with $scaling.cpuPercent }}
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ . }}}
    {{- end }}
    {{- with $scaling.connections.perPod }}
    - type: Pods
      pods:
        metric: {name: {{ $scaling.connections.metric }}}
        target: {type: AverageValue, averageValue: {{ . | quote }}}
    {{- end }}
  {{- with $scaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
