{{/* The meter's container, beside a server or alone on a node. */}}

{{- define "joulegate.meterPorts" -}}
ports:
  - {name: meter, containerPort: 9464, protocol: TCP}
# No readiness probe: a server without its meter still serves, with energies that say `estimated`.
livenessProbe:
  tcpSocket: {port: meter}
  periodSeconds: 10
  failureThreshold: 6
{{- end -}}

{{/* As joulegate.container, with the meter's image. */}}
{{- define "joulegate.meterRuntime" -}}
{{- include "joulegate.container" . | replace (include "joulegate.image" . | quote) (include "joulegate.meterImage" . | quote) -}}
{{- end -}}

{{/* (list root model) */}}
{{- define "joulegate.meterContainer" -}}
{{- $root := index . 0 -}}
{{- $model := index . 1 -}}
{{- $values := $root.Values.meter -}}
- name: meter
  {{- include "joulegate.meterRuntime" $root | nindent 2 }}
  {{- if eq $model.mode "simulator" }}
  args:
    - meter
    - --source=simulator
    - --url=http://localhost:8000
    - --backend=http://localhost:8000
    - {{ printf "--host=%v" $root.Values.listenAddress | quote }}
    - --port=9464
    - {{ printf "--hz=%v" $values.hz | quote }}
    - {{ include "joulegate.meterSecretOption" $root }}
  {{- else }}
  # It has no GPU of its own and needs none: the server's container writes their counters down.
  args:
    - meter
    - --source=file
    - --device=/run/gpus/counters
    - --backend=http://localhost:8000
    - {{ printf "--host=%v" $root.Values.listenAddress | quote }}
    - --port=9464
    - {{ printf "--hz=%v" $values.hz | quote }}
    - {{ include "joulegate.meterSecretOption" $root }}
  {{- end }}
  {{- include "joulegate.meterPorts" $root | nindent 2 }}
  {{- if ne $model.mode "simulator" }}
  lifecycle:
    preStop:
      # As long as the server runs what it has left, so that this is metered too.
      exec:
        command: [sh, -c, "while find /run/gpus/counters -newermt '-3 seconds' 2>/dev/null | grep -q .; do sleep 1; done"]
  {{- end }}
  resources: {{- toYaml $values.resources | nindent 4 }}
  {{- $mounts := include "joulegate.meterSecretMount" $root }}
  {{- if ne $model.mode "simulator" }}
  {{- $mounts = printf "- {name: gpus, mountPath: /run/gpus, readOnly: true}\n%s" $mounts }}
  {{- end }}
  {{- with $mounts }}
  volumeMounts: {{- . | trim | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The secret that gateways and meters share: the user's, else the chart's own; empty: there is none. */}}
{{- define "joulegate.meterSecretName" -}}
{{- with .Values.meter -}}
{{- if .secret.name -}}
{{- .secret.name -}}
{{- else if not (or .allowUnauthenticated (eq .mode "none")) -}}
{{- include "joulegate.named" (list $ "meter") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "joulegate.meterSecretOption" -}}
{{- include "joulegate.meterSecretName" . | empty | ternary "--no-secret" "--secret-file=/etc/meter/secret" -}}
{{- end -}}

{{- define "joulegate.meterSecretMount" -}}
{{- if include "joulegate.meterSecretName" . -}}
- {name: meter-secret, mountPath: /etc/meter, readOnly: true}
{{- end -}}
{{- end -}}

{{- define "joulegate.meterSecretVolume" -}}
{{- with include "joulegate.meterSecretName" . -}}
- name: meter-secret
  secret:
    secretName: {{ . | quote }}
    items: [{key: {{ $.Values.meter.secret.key | quote }}, path: secret}]
    defaultMode: 0440
{{- end -}}
{{- end -}}

{{/* The name of a ledger of a meter.yaml that reads NVML, which `auto` tries first; empty: none does. */}}
{{- define "joulegate.readsNvml" -}}
{{- $found := list -}}
{{- range .ledgers | default (list (dict "name" "default")) -}}
{{- if has (.source | default "auto") (list "auto" "nvml") -}}{{- $found = append $found (.name | default "default") -}}{{- end -}}
{{- end -}}
{{- with $found -}}{{- first . -}}{{- end -}}
{{- end -}}
