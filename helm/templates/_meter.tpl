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
  # The server's GPUs and no others.
  command:
    - sh
    - -c
    - |
      trap 'exit 0' TERM
      until [ -s /run/gpus/uuids ]; do sleep 1; done
      while read -r uuid; do
        case $uuid in MIG-*)
          echo "the server has $uuid, a part of a GPU, and energy counters are the whole GPU's: set meter.mode none" >&2
          exit 1
        esac
        set -- "$@" "--device=$uuid"
      done </run/gpus/uuids
      exec joulegate meter "$@"
    - meter
  args:
    - --source=nvml
    - --backend=http://localhost:8000
    - {{ printf "--host=%v" $root.Values.listenAddress | quote }}
    - --port=9464
    - {{ printf "--hz=%v" $values.hz | quote }}
    - {{ include "joulegate.meterSecretOption" $root }}
  env:
    # NVIDIA's runtime gives a container without GPUs of its own the driver's library and a view of all.
    - {name: NVIDIA_VISIBLE_DEVICES, value: all}
    - {name: NVIDIA_DRIVER_CAPABILITIES, value: utility}
  {{- end }}
  {{- include "joulegate.meterPorts" $root | nindent 2 }}
  # The server's container may start much later: its image is large.
  startupProbe:
    tcpSocket: {port: meter}
    periodSeconds: 5
    failureThreshold: {{ divf $model.startupSeconds 5 | ceil }}
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
