{{/* Names and labels. They do not change between upgrades: selectors hang on them. */}}

{{- define "joulegate.chartName" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "joulegate.fullname" -}}
{{- $name := printf "%s-%s" .Release.Name (include "joulegate.chartName" .) -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if contains (include "joulegate.chartName" .) .Release.Name -}}
{{- $name = .Release.Name -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- fail (printf "%s: a Service's name begins with a small letter; set fullnameOverride" $name) -}}
{{- end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* (list root suffix): fits what Kubernetes hangs on it (StatefulSet revisions, Job numbers: 52 characters). */}}
{{- define "joulegate.named" -}}
{{- $name := printf "%s-%s" (include "joulegate.fullname" (index . 0)) (index . 1) -}}
{{- if gt (len $name) 52 -}}
{{- printf "%s-%s" ($name | trunc 43 | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end -}}

{{/* (list root component [model]) */}}
{{- define "joulegate.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "joulegate.chartName" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 | quote }}
{{- if gt (len .) 2 }}
joulegate.io/model: {{ index . 2 | quote }}
{{- end }}
{{- end -}}

{{/* Those of a pod. What changes with the chart is not among them: it would restart every server. (list root component [model]) */}}
{{- define "joulegate.podLabels" -}}
{{ include "joulegate.selectorLabels" . }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* (list root component [model]) */}}
{{- define "joulegate.labels" -}}
{{- $root := index . 0 -}}
{{ include "joulegate.podLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "joulegate.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "joulegate.fullname" .) -}}
{{- end -}}

{{/* An image by digest, else by tag, from `global.imageRegistry` where one is named. (list root image) */}}
{{- define "joulegate.imageOf" -}}
{{- $image := index . 1 -}}
{{- $name := $image.repository -}}
{{- with ((index . 0).Values.global | default dict).imageRegistry -}}
{{- /* The first part of a name is its registry if it could be a host. */ -}}
{{- $name = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $name "") -}}
{{- end -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ $image.tag }}
{{- end -}}
{{- end -}}

{{- define "joulegate.image" -}}
{{- $image := .Values.image -}}
{{- include "joulegate.imageOf" (list . (dict "repository" $image.repository "digest" $image.digest "tag" ($image.tag | default .Chart.AppVersion))) -}}
{{- end -}}

{{/* The meter's: a tag or digest of its own, or all of the image's. */}}
{{- define "joulegate.meterImage" -}}
{{- $own := .Values.meter.image -}}
{{- $image := .Values.image -}}
{{- if or $own.tag $own.digest -}}{{- $image = $own -}}{{- end -}}
{{- include "joulegate.imageOf" (list . (dict "repository" ($own.repository | default .Values.image.repository) "digest" $image.digest "tag" ($image.tag | default .Chart.AppVersion))) -}}
{{- end -}}

{{/* Annotations of an object, on a line of their own: everybody's and its own. (list root [own]) */}}
{{- define "joulegate.annotations" -}}
{{- $own := dict -}}
{{- if gt (len .) 1 -}}{{- $own = index . 1 | default dict -}}{{- end -}}
{{- with merge (dict) $own (index . 0).Values.commonAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
{{- end -}}
{{- end -}}
