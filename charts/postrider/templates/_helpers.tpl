{{- define "postrider.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Of all objects. 46 characters at most: there is something behind it, such as -controller-metrics, -0 and a hash. */}}
{{- define "postrider.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else if contains (include "postrider.name" .) .Release.Name }}
{{- .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "postrider.name" .) | trunc 46 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "postrider.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "postrider.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | required "serviceAccount.name: with serviceAccount.create=false, name the ServiceAccount that is there" }}
{{- end }}
{{- end }}

{{/* They never change: a StatefulSet is found by them. */}}
{{- define "postrider.selectorLabels" -}}
app.kubernetes.io/name: {{ include "postrider.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of all objects and of the Pod, whatever the values say: by it the plugin finds an installation. In no selector. */}}
{{- define "postrider.partOf" -}}
app.kubernetes.io/part-of: postrider
{{- end }}

{{- define "postrider.labels" -}}
{{ include "postrider.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of an object. Takes root, and perhaps: name or suffix; scope "Cluster", or namespace; component, labels,
annotations. */}}
{{- define "postrider.metadata" -}}
name: {{ .name | default (printf "%s%s" (include "postrider.fullname" .root) (.suffix | default "")) }}
{{- if ne (.scope | default "") "Cluster" }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{- end }}
labels:
  {{- $own := include "postrider.partOf" .root | fromYaml }}
  {{- with .component }}
  {{- $_ := set $own "app.kubernetes.io/component" . }}
  {{- end }}
  {{- $all := include "postrider.labels" .root | fromYaml }}
  {{- toYaml (mergeOverwrite $all (.labels | default dict) $own) | nindent 2 }}
{{- with mergeOverwrite (deepCopy .root.Values.commonAnnotations) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "postrider.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s%s@%s" .repository (empty .tag | ternary "" (printf ":%s" .tag)) .digest }}
{{- else }}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The namespace that is served, or nothing for all. */}}
{{- define "postrider.namespace" -}}
{{- range .Values.watchNamespaces }}{{ . }}{{ end }}
{{- end }}

{{/* "Cluster" where rights are for all namespaces: in front of Role and RoleBinding. */}}
{{- define "postrider.scope" -}}
{{- if not .Values.watchNamespaces }}Cluster{{ end }}
{{- end }}

{{/* Names in the serving certificate, as a list under names. */}}
{{- define "postrider.servingNames" -}}
{{- $service := printf "%s.%s.svc" (include "postrider.fullname" .) .Release.Namespace }}
{{- $names := list $service (printf "%s.%s" $service .Values.clusterDomain) }}
{{- dict "names" (concat $names .Values.ingest.tls.dnsNames | uniq) | toJson }}
{{- end }}

{{/* What both programs are told. */}}
{{- define "postrider.args" -}}
{{- with include "postrider.namespace" . }}
- --namespace={{ . }}
{{- end }}
{{- with .Values.egress.allow }}
- --egress-allow={{ join "," . }}
{{- end }}
{{- with .Values.egress.deny }}
- --egress-deny={{ join "," . }}
{{- end }}
{{- if .Values.ingest.enabled }}
- --tls-secret={{ .Values.ingest.tls.secretName }}
{{- end }}
{{- with .Values.tracing }}
{{- if .endpoint }}
- --otlp-endpoint={{ .endpoint }}
- --trace-ratio={{ .ratio }}
{{- end }}
{{- end }}
- --log-format={{ lower .Values.log.format }}
- --log={{ .Values.log.level }}
{{- end }}

{{- define "postrider.env" -}}
- name: POD_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
{{- with .Values.egress.proxy }}
{{- if and .url .secretRef.name }}
{{- fail "egress.proxy: give url or secretRef.name, not both" }}
{{- end }}
{{- with .url }}
- name: POSTRIDER_EGRESS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .secretRef }}
{{- if .name }}
- name: POSTRIDER_EGRESS_PROXY
  valueFrom: { secretKeyRef: { name: {{ .name | quote }}, key: {{ .key | quote }} } }
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Of a container, whose port of metrics and health has this name. */}}
{{- define "postrider.probes" -}}
# Before it answers, a queue of an older version may have to be brought up to date.
startupProbe:
  httpGet: { path: /livez, port: {{ . }} }
  periodSeconds: 1
  failureThreshold: 300
livenessProbe:
  httpGet: { path: /livez, port: {{ . }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: {{ . }} }
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{/* A binding of the Pod's ServiceAccount to a role of ours, which has the same metadata. */}}
{{- define "postrider.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .scope }}RoleBinding
metadata:
  {{- include "postrider.metadata" . | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .scope }}Role
  name: {{ include "postrider.fullname" .root }}{{ .suffix }}
{{ include "postrider.subjects" .root }}
{{- end }}

{{- define "postrider.subjects" -}}
subjects:
- kind: ServiceAccount
  name: {{ include "postrider.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* Labels of an alert. */}}
{{- define "postrider.alertLabels" -}}
severity: {{ .severity }}
{{- with .root.Values.metrics.prometheusRule.alertLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
