# A service as its sidecar's child, in one task: nomad job run nomad.hcl. The instance in Consul is the sidecar's, so there is
# no `service` block.
job "legacy" {
  type = "service"

  update {
    max_parallel     = 1
    health_check     = "task_states"
    min_healthy_time = "5s"
  }

  group "legacy" {
    count = 3

    network {
      port "inbound" {}
      port "outbound" {}
      port "probes" {}
      port "admin" {}
      port "app" {}
    }

    task "legacy" {
      driver = "exec"

      config {
        command = "/opt/meshsdk/bin/meshsdk"
        args    = ["sidecar", "-c", "${NOMAD_TASK_DIR}/sidecar.yaml", "--exec", "--", "node", "/srv/legacy/app.js"]
      }

      env {
        PORT             = "${NOMAD_PORT_app}"
        SIDECAR_PORT     = "${NOMAD_PORT_outbound}"
        MESH_ADDRESS     = "${NOMAD_IP_inbound}"
        MESH_STATE_DIR   = "${NOMAD_TASK_DIR}/state"
        MESH_RUNTIME_DIR = "${NOMAD_TASK_DIR}/run"
        CONSUL_HTTP_ADDR = "http://127.0.0.1:8500"
      }

      template {
        destination = "local/sidecar.yaml"
        change_mode = "restart"
        data        = <<-YAML
          service: {name: legacy, port: {{ env "NOMAD_PORT_app" }}, health: {http: /healthz}}
          inbound: {port: {{ env "NOMAD_PORT_inbound" }}}
          outbound: {port: {{ env "NOMAD_PORT_outbound" }}}
          admin: {port: {{ env "NOMAD_PORT_admin" }}}
          probes: {port: {{ env "NOMAD_PORT_probes" }}}
          drain: {wait: 1s, timeout: 20s, app: 5s}
        YAML
      }

      kill_signal  = "SIGTERM"
      kill_timeout = "29s" # clients allow 30s unless max_kill_timeout says more

      resources {
        cpu    = 300
        memory = 192
      }
    }
  }
}
