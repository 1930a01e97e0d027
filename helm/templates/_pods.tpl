{{/* What every pod has. */}}

{{- define "joulegate.podSpec" -}}
serviceAccountName: {{ include "joulegate.serviceAccount" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where pods may run: a dict with any of nodeSelector, tolerations, affinity, priorityClassName, runtimeClassName, schedulerName */}}
{{- define "joulegate.placement" -}}
{{- range $key := list "priorityClassName" "runtimeClassName" "schedulerName" -}}
{{- with get $ $key }}
{{ $key }}: {{ quote . }}
{{- end -}}
{{- end -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" -}}
{{- with get $ $key }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Image and security of a container that runs Joulegate. */}}
{{- define "joulegate.container" -}}
image: {{ include "joulegate.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
{{- end -}}

{{/* Preferred or required distance to the component's other pods: (list root component mode) */}}
{{- define "joulegate.antiAffinity" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "joulegate.selectorLabels" (list (index . 0) (index . 1)) | fromYaml)) -}}
{{- if eq (index . 2) "soft" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm: {{- toYaml $term | nindent 8 }}
{{- else if eq (index . 2) "hard" -}}
podAntiAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - {{- toYaml $term | nindent 6 }}
{{- end -}}
{{- end -}}

{{/* Most pods that the gateway can have. */}}
{{- define "joulegate.mostReplicas" -}}
{{- with .Values.gateway -}}
{{- if .keda.enabled -}}{{ .keda.maxReplicas }}
{{- else if .autoscaling.enabled -}}{{ .autoscaling.maxReplicas }}
{{- else -}}{{ .replicas }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* IP families of every Service, where they are said. */}}
{{- define "joulegate.ipFamilies" -}}
{{- with .Values.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
ipFamilies: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
